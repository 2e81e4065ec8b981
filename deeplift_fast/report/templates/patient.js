"use strict";
(() => {
  const table = document.querySelector(".timeline");
  const area = table.closest(".wide");
  area.scrollLeft = area.scrollWidth; // the newest
  document.querySelector("#older").hidden = area.scrollLeft === 0;
  [...table.querySelectorAll("td[tabindex]")].slice(1).forEach((cell) => (cell.tabIndex = -1)); // arrows lead to them
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  table.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    const cell = event.target.closest("td[tabindex]");
    if (!move || !cell) return;
    event.preventDefault();
    let y = cell.parentNode.rowIndex;
    let x = cell.cellIndex;
    for (;;) {
      y += move[0];
      x += move[1];
      const row = table.rows[y];
      const next = row && row.cells[x];
      if (!row || (move[1] && !next)) return;
      if (next && next.hasAttribute("tabindex")) {
        cell.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
        return;
      }
    }
  });
  for (const link of document.querySelectorAll('a[href^="#f"]')) {
    link.addEventListener("click", () => {
      document.querySelector(link.hash).closest("details").open = true;
    });
  }
})();
