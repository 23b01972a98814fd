// What the browser decides by itself: when to ask the server for the next answer. Dash drops an answer that a newer
// question has overtaken, so a slider that is being dragged would show nothing until it rests. Both functions below have
// the answer among their inputs. Dash therefore holds them back while an answer is under way, and then calls them once.
let asked = ""; // the positions that were sent last, as text
let turn = { training: null, number: 0 }; // the epoch that was asked for last

function set(id, data) {
  window.dash_clientside.set_props(id, { data: data });
}

window.dash_clientside = Object.assign({}, window.dash_clientside, {
  explore: {
    // Sends the positions of the controls of the shallow network, if they have changed.
    ask: function (answered, ...positions) {
      const text = JSON.stringify(positions);
      if (text !== asked) {
        asked = text;
        set("asked", positions);
      }
    },
    // Asks for the next epoch of the training when the last one is shown, until the training is done or stopped.
    train: function (training, learned) {
      const begins = training !== turn.training;
      const goes = learned && learned.training === training && learned.more;
      if (training && (begins || goes)) {
        turn = { training: training, number: turn.number + 1 };
        set("turn", turn);
      }
    },
  },
});
