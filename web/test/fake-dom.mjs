// As much of a document as the renderer needs; it has no way to parse HTML, so whoever tried would fail here.

class Node {
  parent = null;

  remove() {
    this.parent.children.splice(this.parent.children.indexOf(this), 1);
  }

  replaceWith(node) {
    this.parent.children.splice(this.parent.children.indexOf(this), 1, node);
    node.parent = this.parent;
  }
}

class Text extends Node {
  constructor(data) {
    super();
    this.data = data;
  }

  appendData(data) {
    this.data += data;
  }

  toString() {
    return this.data.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  }
}

class Element extends Node {
  attributes = {};
  children = [];

  constructor(tag) {
    super();
    this.tag = tag;
  }

  get firstChild() {
    return this.children[0];
  }

  get textContent() {
    return this.children.map((child) => child.data ?? child.textContent).join("");
  }

  setAttribute(name, value) {
    this.attributes[name] = value;
  }

  addEventListener() {}

  append(...nodes) {
    for (const given of nodes) {
      const node = typeof given === "string" ? new Text(given) : given;
      node.parent = this;
      this.children.push(node);
    }
  }

  replaceChildren(...nodes) {
    this.children = [];
    this.append(...nodes);
  }

  querySelector(tag) {
    for (const child of this.children) {
      const found = child.tag === tag ? child : child.querySelector?.(tag);
      if (found) return found;
    }
    return null;
  }

  /** As HTML, without the attributes that are for looks and for screen readers. */
  toString() {
    const shown = Object.entries(this.attributes).filter(([name]) => ["href", "rel", "start", "checked"].includes(name));
    const attributes = shown.map(([name, value]) => ` ${name}="${value}"`).join("");
    return `<${this.tag}${attributes}>${this.children.join("")}</${this.tag}>`;
  }
}

/** Makes `document` global, and gives a container. */
export function container() {
  globalThis.document = { createElement: (tag) => new Element(tag), createTextNode: (data) => new Text(data) };
  return new Element("main");
}
