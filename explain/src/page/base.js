// What the scripts of all pages begin with. Everything is made of elements and text; nothing of the data is
// read as HTML.
"use strict";

const $ = (id) => document.getElementById(id);

function make(tag, classes, ...children) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  for (const child of children) {
    if (child !== null && child !== undefined) element.append(child);
  }
  return element;
}
