"use strict";

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  persistAuthorization: false, // a token stays in the page's memory
  validatorUrl: null, // asks nobody else
  supportedSubmitMethods: ["get", "post", "patch", "delete"],
});
