"use strict";

// Swagger UI is dark where its root element has this class.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

const root = document.getElementById("swagger-ui");
const ui = SwaggerUIBundle({
  url: root.dataset.spec,
  domNode: root,
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  onComplete() {
    // The key that was given to the page at / in this tab.
    const key = sessionStorage.getItem("key");
    if (key) ui.preauthorizeApiKey("Bearer", key);
  },
});
