// What the browser decides by itself: when to ask the server for the next answer. One question at a time, because Dash
// drops an answer that a newer question has overtaken.
const PATIENCE = 60000; // milliseconds, after which an answer that has not come is given up
let asked = { number: 0, text: "", at: 0 };
let turn = { training: null, number: 0 };

function set(id, data) {
  window.dash_clientside.set_props(id, { data: data });
}

window.dash_clientside = Object.assign({}, window.dash_clientside, {
  explore: {
    // Sends the positions of the controls of the shallow network. Positions that are passed while an answer is under
    // way are not sent; when the answer arrives, the newest positions are.
    ask: function (answered, ...positions) {
      const text = JSON.stringify(positions);
      const waiting = answered !== asked.number && Date.now() - asked.at < PATIENCE;
      if (!waiting && text !== asked.text) {
        asked = { number: asked.number + 1, text: text, at: Date.now() };
        set("asked", { number: asked.number, positions: positions });
      }
    },
    // Asks for the next epoch of the training as soon as the last one is shown, until the training is done or stopped.
    train: function (training, learned) {
      const begins = training !== turn.training;
      const goes = learned && learned.number === turn.number && learned.training === training && learned.more;
      if (training && (begins || goes)) {
        turn = { training: training, number: turn.number + 1 };
        set("turn", turn);
      }
    },
  },
});
