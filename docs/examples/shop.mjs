// A shop behind Penstock: creates a sale, buys, pays, cancels, and hears of it by webhook until it is stopped. Node 18 or later, no packages.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

const { PENSTOCK = "127.0.0.1:8080", PENSTOCK_ADMIN = "127.0.0.1:9900", PORT = "3000" } = process.env;
const { PENSTOCK_PAYMENT_KEY, PENSTOCK_DOWNSTREAM_SECRET, PENSTOCK_LOGIN_KEY } = process.env;
const TOLERANCE_S = 300;
const orders = new Map(), seen = new Set(); // in a real shop: tables of one database

/** Whether Penstock signed these very bytes, and lately. */
function verify(header, body, nowS) {
  const fields = Object.fromEntries(header.split(",").map((part) => part.split("=", 2)));
  if (!/^\d+$/.test(fields.t ?? "") || Math.abs(nowS - Number(fields.t)) > TOLERANCE_S) return false;
  const expected = createHmac("sha256", PENSTOCK_DOWNSTREAM_SECRET).update(`${fields.t}.`).update(body).digest("hex");
  const given = Buffer.from(fields.v1 ?? "");
  return given.length === expected.length && timingSafeEqual(given, Buffer.from(expected));
}

const server = createServer(async (request, response) => {
  const chunks = []; // the raw bytes: JSON written anew has another signature
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  const isHook = request.method === "POST" && request.url === "/hooks/penstock";
  if (!isHook || !verify(request.headers["penstock-signature"] ?? "", body, Date.now() / 1000)) return response.writeHead(401).end();
  const event = JSON.parse(body);
  if (!seen.has(event.id)) { // in a real shop: one transaction, with the event's id as a primary key
    seen.add(event.id);
    const { id, status } = event.data.order;
    if (!["paid", "released", "refused"].includes(orders.get(id))) orders.set(id, status); // an old event may come again: never go back
    console.log("event", event.type, id);
    server.emit("news");
  }
  response.writeHead(200).end(); // only now: any 2xx says that the event need not come again
});

/** One call, sent again as it is while that may help: the Idempotency-Key makes repeating a POST harmless. */
async function call(host, method, path, { body, headers } = {}) {
  for (let attempt = 0; attempt < 8; attempt++) {
    let wait;
    try {
      const answer = await fetch(`http://${host}${path}`, { method, body, headers, signal: AbortSignal.timeout(40_000) });
      const document = await answer.json();
      if (answer.status === 200 || answer.status === 201) return document;
      // 202: not known yet, which is neither sold nor refused; the same key finds out.
      if (![202, 429, 503].includes(answer.status) && answer.headers.get("stripe-should-retry") !== "true")
        throw Object.assign(new Error(`${method} ${path}: ${answer.status} ${document.code ?? JSON.stringify(document.error)}`), { final: true });
      wait = answer.headers.get("retry-after");
    } catch (error) {
      if (error.final) throw error; // anything else: nobody knows whether it arrived
    }
    await sleep(wait ? Number(wait) * 1000 : Math.min(100 * 2 ** attempt, 5000));
  }
  throw new Error(`${method} ${path}: gave up`);
}

/** Who buys: a header that this machine may set, or, with `buyer = "jwt:sub"`, a token of the shop's login. */
function asBuyer(buyer) {
  if (!PENSTOCK_LOGIN_KEY) return { "x-buyer-id": buyer };
  const coded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const token = `${coded({ alg: "HS256" })}.${coded({ sub: buyer, exp: Math.floor(Date.now() / 1000) + 600 })}`;
  return { authorization: `Bearer ${token}.${createHmac("sha256", PENSTOCK_LOGIN_KEY).update(token).digest("base64url")}` };
}

async function buy(sale, buyer, key) {
  const headers = { ...asBuyer(buyer), "idempotency-key": key, "content-type": "application/json" };
  return call(PENSTOCK, "POST", `/v1/sales/${sale}/orders`, { body: JSON.stringify({ sku: "shoe", quantity: 1 }), headers });
}

async function pay({ id, amount_minor, currency }) {
  const body = new URLSearchParams({ amount: amount_minor, currency, "metadata[order]": id, payment_method: "pm_card_visa", confirm: "true" });
  const headers = { authorization: `Bearer ${PENSTOCK_PAYMENT_KEY}`, "idempotency-key": `pay-${id}` };
  return call(PENSTOCK, "POST", "/v1/payment_intents", { body, headers });
}

async function heard({ id }, status) {
  while (orders.get(id) !== status) await once(server, "news", { signal: AbortSignal.timeout(30_000) });
}

server.listen(Number(PORT), "127.0.0.1");
const now = Date.now();
const sale = { id: `demo-${now}`, starts_at_ms: now - 1000, ends_at_ms: now + 3_600_000, pay_within: "10m", buyer_limit: 2,
  currency: "usd", skus: [{ sku: "shoe", stock: 100, price_minor: 1999 }] };
await call(PENSTOCK_ADMIN, "POST", "/admin/v1/sales", { body: JSON.stringify(sale) });
const first = await buy(sale.id, "ann", "click-1"), again = await buy(sale.id, "ann", "click-1");
if (first.id !== again.id) throw new Error("one key, one order");
console.log("intent", (await pay(first)).status);
// Answers as soon as the order is no longer reserved, at the latest after 20 seconds.
const stands = await call(PENSTOCK, "GET", `/v1/orders/${first.id}?wait=20s&status=reserved`, { headers: asBuyer("ann") });
console.log("order", stands.status);
await heard(first, "paid");
const other = await buy(sale.id, "ann", "click-2");
const given = await call(PENSTOCK, "DELETE", `/v1/orders/${other.id}`, { headers: asBuyer("ann") });
console.log("order", given.status);
await heard(other, "released");
console.log("done");
