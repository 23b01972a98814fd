// The page asks its program by itself, and not through Dash's callbacks to the server. Dash gives up a question when a
// newer question has overtaken it, and loses a question when the connection breaks. A slider that is being dragged would
// then show nothing, and the page could end at other positions than those of its controls.
window.dash_clientside = window.dash_clientside || {};
(function () {
  const SILENCE = 1000; // milliseconds until the page asks again when no answer came
  const LOOK = 500; // milliseconds from one look at the sliders to the next
  const NO_ANSWER =
    "The program does not answer. The page asks again every second. If you have ended the program, start it again.";
  const FAILED = "The program failed. The terminal in which it runs shows the error.";

  // Sets properties of components: {component: {property: value}}.
  function show(shown) {
    for (const [component, properties] of Object.entries(shown)) {
      window.dash_clientside.set_props(component, properties);
    }
  }

  function tell(troubles, words) {
    const paragraph = { namespace: "dash_html_components", type: "P", props: { children: words } };
    if (troubles) show({ [troubles]: { children: [paragraph] } });
  }

  // Marks the results beside the controls while they wait for an answer; the style sheet then dims the figures.
  function wait(troubles, busy) {
    if (troubles) document.getElementById(troubles).parentElement.setAttribute("aria-busy", busy);
  }

  // Resolves to the answer to a question, or to null if none came. Failures are told in the component `troubles`.
  async function answer(name, question, troubles) {
    wait(troubles, true);
    try {
      const response = await fetch(`ask/${name}`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(question),
      });
      if (response.ok) return await response.json();
      tell(troubles, FAILED);
      return { shown: {} };
    } catch {
      tell(troubles, NO_ANSWER);
      await new Promise((resume) => setTimeout(resume, SILENCE));
      return null;
    } finally {
      wait(troubles, false);
    }
  }

  // Returns a function that takes the positions of controls, and lets the page follow them. One question at a time is
  // under way. When its answer is shown, the newest positions are asked for, unless the answer was for them. Whatever
  // Dash tells of the sliders, their own positions count, and the page looks at them again and again.
  function follower(name, troubles = null) {
    let controls = [];
    let told = [];
    let answered = "[]";
    let asking = false;
    function wanted() {
      return JSON.stringify(
        told.map((value, i) => {
          const control = document.getElementById(controls[i]);
          return control && control.type === "range" ? control.value : value;
        }),
      );
    }
    async function follow() {
      if (asking) return;
      asking = true;
      try {
        for (let asked = wanted(); asked !== answered; asked = wanted()) {
          const found = await answer(name, JSON.parse(asked), troubles);
          if (found === null) continue;
          show(found.shown);
          answered = asked;
        }
      } finally {
        asking = false;
      }
    }
    setInterval(follow, LOOK);
    return function (...positions) {
      controls = window.dash_clientside.callback_context.inputs_list.map(({ id }) => id);
      told = positions;
      follow();
    };
  }

  let presses = 0; // of Train, as Dash counts them
  let current = 0; // number of the training that is shown; Train and Stop begin a new number
  // Trains epoch by epoch, from a press of Train until the last epoch, or until a button is pressed again.
  async function train(choices) {
    const mine = ++current;
    let question = choices;
    for (let name = "training"; name && mine === current; ) {
      const found = await answer(name, question, "deep-troubles");
      if (found === null || mine !== current) continue;
      show(found.shown);
      question = found.training;
      name = question ? "epoch" : null;
    }
  }

  window.dash_clientside.explore = {
    shallow: follower("shallow", "shallow-troubles"),
    shallow_dials: follower("shallow-dials"),
    deep_dials: follower("deep-dials"),
    press: function (trains, stops, ...choices) {
      if ((trains || 0) > presses) {
        presses = trains;
        train(choices);
      } else {
        current += 1;
      }
    },
  };
})();
