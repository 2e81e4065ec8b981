"use strict";
(() => {
  const tables = [...document.querySelectorAll(".sortable")];
  const rows = [...document.querySelectorAll(".sortable tbody tr")];
  const texts = rows.map((row) => row.querySelector("th").textContent.toLowerCase());
  const make = (name, text) => Object.assign(document.createElement(name), { textContent: text });

  const label = make("label", "Search titles and codes");
  const input = Object.assign(make("input", ""), { type: "search", id: "wanted" });
  const found = make("output", "");
  label.htmlFor = "wanted";
  document.querySelector("#search").append(label, input, found);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, place) => {
      row.hidden = !words.every((word) => texts[place].includes(word));
      shown += !row.hidden;
    });
    found.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  });

  const key = (row, column) => {
    const cell = row.cells[column];
    if (!cell.dataset.v) return cell.textContent.trim().toLowerCase();
    return Number(cell.dataset.v);
  };
  const compare = (one, other) => {
    if (typeof one === "number" && typeof other === "number") return one - other;
    if (typeof one === "number" || typeof other === "number") return typeof one === "number" ? 1 : -1;
    return one.localeCompare(other, undefined, { numeric: true });
  };
  for (const table of tables) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if ("plain" in head.dataset) return;
      const button = make("button", "");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const texty = column === 0;
        const before = head.getAttribute("aria-sort");
        const up = before ? before === "descending" : texty;
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const ordered = [...body.rows].map((row) => [key(row, column), row]);
        ordered.sort((one, other) => (up ? 1 : -1) * compare(one[0], other[0]));
        body.append(...ordered.map((each) => each[1]));
      });
    });
  }
})();
