// Dash draws the figures. The controls are this script's own, and the page asks its program by itself, not through Dash's
// callbacks to the server. Dash gives up a question when a newer question has overtaken it, and loses a question when the
// connection breaks. A slider that is being dragged would then show nothing, and the page could end at other positions
// than those of its controls.
(function () {
  const SILENCE = 1000; // milliseconds until the page asks again when no answer came
  const LOOK = 20; // milliseconds from one look for the empty forms to the next, until Dash has drawn them
  const NO_ANSWER =
    "The program does not answer. The page asks again every second. If you have ended the program, start it again.";
  const FAILED = "The program failed. The terminal in which it runs shows the error.";

  // Shows an answer: `shown` sets properties of Dash's components, and `dials` says what stands beside the dials.
  function show({ shown = {}, dials = {} }) {
    for (const [component, properties] of Object.entries(shown)) {
      window.dash_clientside.set_props(component, properties);
    }
    for (const [key, { text, hidden }] of Object.entries(dials)) {
      document.getElementById(`${key}-shown`).textContent = text;
      document.getElementById(key).setAttribute("aria-valuetext", text);
      document.getElementById(`${key}-dial`).hidden = hidden;
    }
  }

  function tell(troubles, words) {
    const paragraph = { namespace: "dash_html_components", type: "P", props: { children: words } };
    if (troubles) show({ shown: { [troubles]: { children: [paragraph] } } });
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
      return {};
    } catch {
      tell(troubles, NO_ANSWER);
      await new Promise((resume) => setTimeout(resume, SILENCE));
      return null;
    } finally {
      wait(troubles, false);
    }
  }

  // Returns the positions of a form's controls by name, all as text. A box that is not ticked has no entry.
  function positions(form) {
    return Object.fromEntries(new FormData(form));
  }

  // Lets the page follow the controls of a form. One question at a time is under way. When its answer is shown, the
  // newest positions are asked for, unless the answer was for them.
  function follow(form, name, troubles = null) {
    let answered = null;
    let asking = false;
    async function ask() {
      if (asking) return;
      asking = true;
      try {
        for (;;) {
          const question = positions(form);
          if (JSON.stringify(question) === answered) return;
          const found = await answer(name, question, troubles);
          if (found === null) continue;
          show(found);
          answered = JSON.stringify(question);
        }
      } finally {
        asking = false;
      }
    }
    form.addEventListener("input", ask);
    ask();
  }

  let current = 0; // number of the training that is shown; Train and Stop begin a new number
  // Trains epoch by epoch, from a press of Train until the last epoch, or until a button is pressed again.
  async function train(choices) {
    const mine = ++current;
    let question = choices;
    for (let name = "training"; name && mine === current; ) {
      const found = await answer(name, question, "deep-troubles");
      if (found === null || mine !== current) continue;
      show(found);
      question = found.training;
      name = question ? "epoch" : null;
    }
  }

  // Returns a form of the page, filled with its controls.
  function filled(key) {
    const form = document.getElementById(key);
    form.innerHTML = form.dataset.controls;
    form.addEventListener("submit", (event) => event.preventDefault()); // Enter in a field would load the page again
    return form;
  }

  function begin() {
    const shallow = filled("shallow-controls");
    follow(shallow, "shallow-dials");
    follow(shallow, "shallow", "shallow-troubles");
    const deep = filled("deep-controls");
    follow(deep, "deep-dials");
    document.getElementById("train").addEventListener("click", () => train(positions(deep)));
    document.getElementById("stop").addEventListener("click", () => (current += 1));
  }

  const waiting = setInterval(() => {
    if (!document.getElementById("deep-controls")) return;
    clearInterval(waiting);
    begin();
  }, LOOK);
})();
