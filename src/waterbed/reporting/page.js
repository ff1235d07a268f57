"use strict";
// Tables as CSV: a cell that holds a published number and ours becomes two.
const safe = text => /^([=@\t\r]|[+-](?![\d.])|[+-].*[(|!=])/.test(text) ? `'${text}` : text; // no formula in a spreadsheet
const field = text => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
const plain = node => node.textContent.replace(/\s+/g, " ").trim();
const cells = (row, paired) => [...row.cells].flatMap((cell, i) => {
  const parts = [".published", ".own"].map(kind => cell.querySelector(kind));
  if (parts[1]) return parts.map(part => part.lastChild.textContent.trim());
  return paired.has(i) ? [`${plain(cell)} (published)`, `${plain(cell)} (ours)`] : [plain(cell)];
});
const csv = table => {
  const first = table.tBodies[0].rows[0];
  const paired = new Set([...(first?.cells ?? [])].flatMap((cell, i) => cell.querySelector(".own") ? [i] : []));
  const lines = [cells(table.tHead.rows[0], paired), ...[...table.tBodies[0].rows].map(row => cells(row, new Set()))];
  return lines.map(line => line.map(safe).map(field).join(",")).join("\r\n") + "\r\n";
};
for (const table of document.querySelectorAll("main table")) {
  const button = Object.assign(document.createElement("button"), {type: "button", className: "csv", textContent: "CSV"});
  button.setAttribute("aria-label", "Download this table as CSV");
  button.addEventListener("click", () => {
    const name = (table.closest("[id]")?.id || "table") + ".csv";
    const url = URL.createObjectURL(new Blob(["\ufeff", csv(table)], {type: "text/csv"}));
    Object.assign(document.createElement("a"), {href: url, download: name}).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  });
  table.caption.append(button);
}
// Search: every part with a heading, its words anywhere in it; / puts the cursor into the field.
const search = document.querySelector(".search");
if (search) {
  const [input, list, count] = ["input", ".found", ".count"].map(name => document.querySelector(name));
  const parts = [...document.querySelectorAll("main [data-part]")].map(part => {
    const title = plain(part.querySelector("h2, h3, h4").firstChild);
    const whole = part.querySelector("[data-part]") ? [...part.querySelectorAll(":scope > p")] : [part]; // no part twice
    return {id: part.id, title, words: [title, ...whole.map(plain)].join(" ").toLowerCase()};
  });
  search.hidden = parts.length < 12;
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = words.length ? parts.filter(part => words.every(word => part.words.includes(word))) : [];
    found.sort((a, b) => words.every(w => b.title.toLowerCase().includes(w)) - words.every(w => a.title.toLowerCase().includes(w)));
    count.textContent = words.length ? `${found.length} found` : "";
    list.replaceChildren(...found.slice(0, 15).map(part => {
      const item = document.createElement("li");
      item.append(Object.assign(document.createElement("a"), {href: `#${part.id}`, textContent: part.title}));
      return item;
    }));
  });
  document.addEventListener("keydown", event => {
    if (event.key === "/" && !search.hidden && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) { event.preventDefault(); input.focus(); }
    if (event.key === "Escape" && document.activeElement === input) { input.value = ""; input.dispatchEvent(new Event("input")); }
  });
}
