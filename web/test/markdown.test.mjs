import assert from "node:assert/strict";
import { test } from "node:test";
import { parseInline } from "../static/assets/markdown/inline.js";
import { MarkdownView } from "../static/assets/markdown/render.js";
import { container } from "./fake-dom.mjs";
import { MARKDOWN, STORY, THOUGHTS } from "./stub-answers.mjs";

const LINK = 'rel="noopener noreferrer"';

function html(text) {
  const main = container();
  new MarkdownView(main, async () => true).update(text);
  return main.children.join("");
}

const CASES = {
  "headings go one level down": ["# A\n###### B ##", "<h2>A</h2><h6>B</h6>"],
  "a hash without a space is text": ["#1 of 3", "<p>#1 of 3</p>"],
  emphasis: ["**a** *b* ***c*** _d_ ~~e~~", "<p><strong>a</strong> <em>b</em> <em><strong>c</strong></em> <em>d</em> <del>e</del></p>"],
  "nested emphasis": ["**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"],
  "underscores in words": ["snake_case_name", "<p>snake_case_name</p>"],
  "marks without a partner": ["2 * 3 ** 4 and *open", "<p>2 * 3 ** 4 and *open</p>"],
  "code spans": ["`a*b*` and `` c`d ``", "<p><code>a*b*</code> and <code>c`d</code></p>"],
  "an open code span": ["`a b", "<p>`a b</p>"],
  escapes: ["\\*a\\* &lt;b&gt;", "<p>*a* &lt;b></p>"],
  formulas: ["\\(a_1*b*\\) and $$x$$ for 5$", "<p><code>a_1*b*</code> and <code>x</code> for 5$</p>"],
  "line breaks": ["a  \nb\nc", "<p>a<br></br>b\nc</p>"],
  links: ["[a *b*](https://x.org/(y) \"t\")", `<p><a href="https://x.org/(y)" ${LINK}>a <em>b</em></a></p>`],
  "bare addresses": ["(see https://x.org/a_b_c).", `<p>(see <a href="https://x.org/a_b_c" ${LINK}>https://x.org/a_b_c</a>).</p>`],
  "images are links": ["![pic](https://x.org/a.png)", `<p><a href="https://x.org/a.png" ${LINK}>pic</a></p>`],
  "a link in a link is one": ["[https://a.org](https://b.org)", `<p><a href="https://b.org/" ${LINK}>https://a.org</a></p>`],
  "unsafe links are text": ["[a](javascript:alert(1)) [b](data:text/html,x) <javascript:x>", "<p>a b &lt;javascript:x></p>"],
  "unsafe in disguise": ["[a](JaVaScRiPt:alert(1)) [b](&#106;avascript:x) [c](/relative)", "<p>a b c</p>"],
  "HTML is text": ["<img src=x onerror=alert(1)>", "<p>&lt;img src=x onerror=alert(1)></p>"],
  fences: ["```js x\n  a < b\n\n```\nc", "<div><div><span>js</span><button>Copy</button></div><pre><code>  a &lt; b\n</code></pre></div><p>c</p>"],
  "an open fence": ["~~~\n``` x", "<div><div><span>text</span><button>Copy</button></div><pre><code>``` x</code></pre></div>"],
  quotes: ["> a\nb\n> > c\n\nd", "<blockquote><p>a\nb</p><blockquote><p>c</p></blockquote></blockquote><p>d</p>"],
  "nested lists": ["- a\n  - b\n    1. c\n- d", "<ul><li>a<ul><li>b<ol><li>c</li></ol></li></ul></li><li>d</li></ul>"],
  "loose lists": ["3. a\n\n4. b", '<ol start="3"><li><p>a</p></li><li><p>b</p></li></ol>'],
  "tasks": ["- [x] a\n- [ ] b", '<ul><li><input checked=""></input> a</li><li><input></input> b</li></ul>'],
  "code in a list": ["1. a\n   ```\n   b\n     c\n   ```\n2. d", "<ol><li>a<div><div><span>text</span><button>Copy</button></div><pre><code>b\n  c</code></pre></div></li><li>d</li></ol>"],
  "a number does not interrupt": ["born in\n1984. Then", "<p>born in\n1984. Then</p>"],
  "a list after a sentence": ["such as:\n- a\n- b", "<p>such as:</p><ul><li>a</li><li>b</li></ul>"],
  tables: ["x\n| a | b |\n|--|:-:|\n| `1\\|2` |\n\ny", "<p>x</p><div><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td><code>1|2</code></td><td></td></tr></tbody></table></div><p>y</p>"],
  "a pipe is no table": ["a | b\nc", "<p>a | b\nc</p>"],
  rules: ["a\n---\n* * *", "<p>a</p><hr></hr><hr></hr>"],
  "line ends of Windows": ["# a\r\n\r\nb\r\n", "<h2>a</h2><p>b</p>"],
};

for (const [name, [text, expected]] of Object.entries(CASES)) {
  test(`markdown: ${name}`, () => assert.equal(html(text), expected));
}

test("a text that comes in pieces ends as the same elements", () => {
  const texts = [MARKDOWN, STORY, THOUGHTS, ...Object.values(CASES).map(([text]) => text), Object.values(CASES).map(([text]) => text).join("\n\n")];
  let state = 1;
  const random = (n) => {
    state = (state * 48271) % 2147483647;
    return state % n;
  };
  for (let round = 0; round < 4; round += 1) {
    // Whole texts, and lines of them in any order.
    const lines = texts.join("\n").split("\n");
    const mixed = Array.from({ length: 40 }, () => lines[random(lines.length)]).join("\n");
    for (const text of [...texts, mixed]) {
      const main = container();
      const view = new MarkdownView(main, async () => true);
      for (let end = 0; end < text.length;) view.update(text.slice(0, end += 1 + random(7)));
      view.update(text);
      assert.equal(main.children.join(""), html(text), JSON.stringify(text));
    }
  }
});

test("what is settled is not made anew", () => {
  const main = container();
  const view = new MarkdownView(main, async () => true);
  view.update("# a\n\nb\n\nc\nd\n\n");
  const [heading] = main.children;
  view.update("# a\n\nb\n\nc\nd\n\nmore\n\nand more\n\n");
  assert.equal(main.children[0], heading);
  assert.ok(view.settled > 0);
});

test("hostile texts take no more than moments", () => {
  const n = 20000;
  const texts = ["*a ", "[", "](", "`", "**", "[a](", "<", "> ", "- ", "| ", "_a*", "&", "$$", "\\(", "https://", " ", "a**b"].map((s) => s.repeat(n));
  texts.push(Array.from({ length: 400 }, (_, i) => "`".repeat(i)).join(" "), `${"*".repeat(n)}a${"*".repeat(n)}`, "> ".repeat(n) + "a", `# ${" ".repeat(n)}#`);
  for (const text of texts) {
    const begun = performance.now();
    html(text);
    const spent = performance.now() - begun;
    assert.ok(spent < 3000, `${JSON.stringify(text.slice(0, 20))}… took ${Math.round(spent)} ms`);
  }
});

test("inline nodes", () => {
  assert.deepEqual(parseInline("a `b`"), ["a ", { type: "code", text: "b" }]);
});
