"use strict";

/* What a mark of a chart stands for, shown beside the pointer. */
const tip = document.getElementById("tip");
document.addEventListener("pointerover", (event) => {
  const mark = event.target.closest?.('.chart [aria-label][role="graphics-symbol"]');
  const told = mark && ["point", "bar"].includes(mark.getAttribute("aria-roledescription"));
  tip.hidden = !told;
  if (!told) return;
  tip.textContent = mark.getAttribute("aria-label");
  const place = mark.getBoundingClientRect();
  const left = place.left + place.width / 2 - tip.offsetWidth / 2;
  tip.style.left = `${window.scrollX + Math.max(8, Math.min(left, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${window.scrollY + place.top - tip.offsetHeight - 8}px`;
});

/* The answers that changed: filtered, and some at a time. Every text is set as text, never as markup. */
const data = document.getElementById("answers-data");
if (data) {
  const { checkpoints, problems } = JSON.parse(data.textContent);
  const [form, list, found, more] = ["filters", "flips", "found", "more"].map((id) => document.getElementById(id));
  const PER_PAGE = 10;
  let chosen = [];
  let shown = 0;

  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const card = (title, note, text, className) => {
    const made = element("div", `answer ${className}`);
    made.append(element("h4", "", title), element("p", "note", note), element("pre", "", text || "(nothing)"));
    return made;
  };
  const article = (problem) => {
    const made = element("article", "flip");
    made.append(element("h3", "", problem.question), element("p", "quiet", `Gold answer: ${problem.gold}`));
    const answers = element("div", "side");
    if (problem.teacher) answers.append(card("teacher", "reference", problem.teacher, "reference"));
    problem.answers.forEach((one, index) => {
      const verdict = one.right ? "✓ right" : "✗ wrong";
      answers.append(card(checkpoints[index], `${verdict}, ${one.tokens} tokens`, one.text, one.right ? "right" : "wrong"));
    });
    made.append(answers);
    return made;
  };
  const showMore = () => {
    list.append(...chosen.slice(shown, shown + PER_PAGE).map(article));
    shown = Math.min(shown + PER_PAGE, chosen.length);
    more.hidden = shown === chosen.length;
    found.textContent = `${shown} of ${chosen.length} problems shown`;
  };
  const matches = (problem) => {
    const { text, change, before, after } = Object.fromEntries([...form.elements].map((field) => [field.name, field.value]));
    const [first, second] = [problem.answers[before].right, problem.answers[after].right];
    const changed = { any: true, gained: !first && second, lost: first && !second }[change];
    const texts = [problem.question, problem.gold, problem.teacher, ...problem.answers.map((one) => one.text)];
    return changed && texts.join("\n").toLowerCase().includes(text.toLowerCase());
  };
  const filter = () => {
    form.querySelector("fieldset").disabled = form.elements.change.value === "any";
    chosen = problems.filter(matches);
    shown = 0;
    list.replaceChildren();
    showMore();
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", showMore);
  filter();
}
