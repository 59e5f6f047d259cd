// A third implementation, of neither side: opens envelopes with OpenSSL through node, and signs keys with noble's
// secp256k1. Asked as data, like official.cjs.
"use strict";

const crypto = require("node:crypto");
const fs = require("node:fs");
const { secp256k1 } = require("@noble/curves/secp256k1");
const { keccak_256 } = require("@noble/hashes/sha3");

// RFC 8410: what comes before the 32 bytes of an X25519 key in PKCS #8 and in SubjectPublicKeyInfo.
const PRIVATE = Buffer.from("302e020100300506032b656e04220420", "hex");
const PUBLIC = Buffer.from("302a300506032b656e032100", "hex");

function open(sealed, privateKey) {
  const raw = Buffer.from(sealed, "hex");
  const key = crypto.diffieHellman({
    privateKey: crypto.createPrivateKey({
      key: Buffer.concat([PRIVATE, Buffer.from(privateKey, "hex")]),
      format: "der",
      type: "pkcs8",
    }),
    publicKey: crypto.createPublicKey({
      key: Buffer.concat([PUBLIC, raw.subarray(0, 32)]),
      format: "der",
      type: "spki",
    }),
  });
  const decipher = crypto.createDecipheriv("aes-256-gcm", key, raw.subarray(32, 44));
  decipher.setAuthTag(raw.subarray(-16));
  return JSON.parse(Buffer.concat([decipher.update(raw.subarray(44, -16)), decipher.final()]).toString("utf8"));
}

function sign(root, appId, publicKey, timestamp) {
  const moment = Buffer.alloc(timestamp === null ? 0 : 8);
  if (timestamp !== null) moment.writeBigUInt64BE(BigInt(timestamp));
  const message = Buffer.concat([
    Buffer.from("dstack-env-encrypt-pubkey:"),
    Buffer.from(appId, "hex"),
    moment,
    Buffer.from(publicKey, "hex"),
  ]);
  const signature = secp256k1.sign(keccak_256(message), root);
  return signature.toCompactHex() + Buffer.from([signature.recovery]).toString("hex");
}

const functions = { open, sign, root: (key) => Buffer.from(secp256k1.getPublicKey(key)).toString("hex") };
const asked = JSON.parse(fs.readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(asked.map(([name, ...args]) => functions[name](...args))));
