// The official SDKs of npm, asked as data: a JSON list of [function, ...arguments] on standard input,
// their answers as a JSON list on standard output.
"use strict";

const fs = require("node:fs");
const dstack = {
  ...require("@phala/dstack-sdk/encrypt-env-vars"),
  ...require("@phala/dstack-sdk/get-compose-hash"),
  ...require("@phala/dstack-sdk/verify-env-encrypt-public-key"),
};
const cloud = require("@phala/cloud");

const bytes = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));

const functions = {
  encrypt: (variables, key) => dstack.encryptEnvVars(variables, key),
  cloudEncrypt: (variables, key) => cloud.encryptEnvVars(variables, key),
  verify: (key, signature, appId, timestamp) =>
    dstack.verifyEnvEncryptPublicKey(bytes(key), bytes(signature), appId, timestamp),
  verifyLegacy: (key, signature, appId) =>
    dstack.verifyEnvEncryptPublicKeyLegacy(bytes(key), bytes(signature), appId),
  hash: (appCompose, normalize) => dstack.getComposeHash(appCompose, normalize),
  // Through the client, as users get it: the app-compose is fetched, and hashes itself.
  fetchedHash: async (baseURL, apiKey, cvm) =>
    (await cloud.createClient({ baseURL, apiKey }).getCvmComposeFile({ id: cvm })).getHash(),
};

(async () => {
  const answers = [];
  for (const [name, ...args] of JSON.parse(fs.readFileSync(0, "utf8"))) {
    answers.push(await functions[name](...args));
  }
  process.stdout.write(JSON.stringify(answers));
})();
