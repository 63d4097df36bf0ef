// A table that can be sorted and filtered, a page of it at a time.

const PAGE = 50;
const PRINTED = 2000;
// so many rows need no filter
const FEW = 8;

class Listing {
  // place: an empty element; table: columns, and per row texts and what to sort them by
  constructor(place, table, id) {
    Object.assign(this, { table, id, sorted: null, rising: true, page: 0, all: false });
    this.order = table.rows.map((_, i) => i);
    this.haystack = table.rows.map((texts) => texts.join(" ").toLowerCase());
    this.filter = html("input", { type: "search", id: `${id}-filter`, autocomplete: "off", placeholder: "words, such as rlt 0.4" });
    this.filter.addEventListener("input", () => { this.page = 0; this.draw(); });
    this.count = html("span", { role: "status", class: "soft" });
    this.back = this.turn("Previous", -1);
    this.next = this.turn("Next", 1);
    const pager = html("span", { class: "pager" }, [this.count, this.back, this.next]);
    this.body = html("tbody");
    this.heads = table.columns.map((column, i) => this.head(column, i));
    const grid = html("table", {}, [
      html("caption", { class: "hidden" }, ["Press a heading to sort by it"]),
      html("thead", {}, [html("tr", {}, this.heads)]), this.body,
    ]);
    const label = html("label", { for: `${id}-filter` }, ["Filter"]);
    place.append(
      html("div", { class: "bar" }, table.rows.length > FEW ? [label, this.filter, pager, this.keeper()] : []),
      html("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table, scrolls sideways" }, [grid]),
    );
    window.addEventListener("beforeprint", () => { this.all = true; this.draw(); });
    window.addEventListener("afterprint", () => { this.all = false; this.draw(); });
    this.draw();
  }

  turn(text, step) {
    return button(text, () => { this.page += step; this.draw(); });
  }

  // Keep what the filter leaves, in the order that is shown.
  keeper() {
    const rows = () => [this.table.columns.map((column) => column.title), ...this.found().map((row) => this.table.rows[row])];
    return button("CSV", () => keepTable(this.id, rows()), { "aria-label": "Keep the table as CSV" });
  }

  head(column, i) {
    const mark = html("span", { class: "mark", "aria-hidden": "true" });
    const sorter = button(column.title, () => this.sort(i));
    sorter.append(mark);
    return html("th", { scope: "col", class: column.number ? "number" : "text", "aria-sort": "none" }, [sorter]);
  }

  // Rising, falling, and back to the order of the rows; what has no value stays at the end.
  sort(i) {
    if (this.sorted !== i) [this.sorted, this.rising] = [i, true];
    else if (this.rising) this.rising = false;
    else this.sorted = null;
    const sign = this.rising ? 1 : -1;
    this.order = this.table.rows.map((_, row) => row);
    if (this.sorted !== null) {
      const keys = this.table.keys.map((row) => row[i]);
      this.order.sort((a, b) => {
        if (keys[a] === null || keys[b] === null) return (keys[a] === null) - (keys[b] === null);
        return sign * (typeof keys[a] === "number" ? keys[a] - keys[b] : keys[a].localeCompare(keys[b], "en", { numeric: true }));
      });
    }
    this.page = 0;
    this.draw();
  }

  found() {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    return this.order.filter((row) => words.every((word) => this.haystack[row].includes(word)));
  }

  draw() {
    const found = this.found();
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    this.page = Math.max(0, Math.min(this.page, pages - 1));
    const first = this.all ? 0 : this.page * PAGE;
    const shown = found.slice(first, first + (this.all ? PRINTED : PAGE));
    this.body.replaceChildren(...shown.map((row) => this.line(row)));
    this.heads.forEach((head, i) => this.mark(head, i));
    this.back.disabled = this.page === 0;
    this.next.disabled = this.page >= pages - 1;
    this.back.hidden = this.next.hidden = pages === 1;
    const range = shown.length ? `${first + 1} to ${first + shown.length} of ${found.length}` : "none";
    const whole = found.length === this.table.rows.length ? "" : ` (${this.table.rows.length} in all)`;
    this.count.textContent = `${range}${whole}`;
  }

  mark(head, i) {
    const state = i !== this.sorted ? "none" : this.rising ? "ascending" : "descending";
    head.setAttribute("aria-sort", state);
    head.querySelector(".mark").textContent = { none: "", ascending: " ▲", descending: " ▼" }[state];
  }

  line(row) {
    const cells = this.table.rows[row].map((text, i) =>
      i === 0 ? html("th", { scope: "row" }, [text]) : html("td", { class: this.table.columns[i].number ? "number" : "text" }, [text]));
    return html("tr", { class: this.table.measured[row] ? "measured" : "unmeasured" }, cells);
  }
}
