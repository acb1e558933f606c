// The start of all pages' scripts. Data becomes elements and text, and is never parsed as HTML.
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
