// Compiles contracts/*.sol, and prints {name: {abi, creation, runtime}} as JSON, code as hex.
const fs = require("node:fs");
const path = require("node:path");
const solc = require("solc");

const folder = path.join(__dirname, "contracts");
const sources = Object.fromEntries(
  fs.readdirSync(folder).map((name) => [name, { content: fs.readFileSync(path.join(folder, name), "utf8") }]),
);
const outputSelection = { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } };
const output = JSON.parse(
  solc.compile(
    JSON.stringify({
      language: "Solidity",
      sources,
      settings: { evmVersion: "london", optimizer: { enabled: true }, outputSelection },
    }),
  ),
);
if (output.errors?.length) {
  console.error(output.errors.map((error) => error.formattedMessage).join("\n"));
  process.exit(1);
}
const contracts = Object.values(output.contracts).flatMap(Object.entries);
console.log(
  JSON.stringify(
    Object.fromEntries(
      contracts.map(([name, { abi, evm }]) => [
        name,
        { abi, creation: evm.bytecode.object, runtime: evm.deployedBytecode.object },
      ]),
    ),
  ),
);
