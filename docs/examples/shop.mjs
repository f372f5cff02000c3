// A shop behind Penstock: creates a sale, buys, pays, cancels, and takes the webhook until it is stopped.
import { once } from "node:events";
import { createServer } from "node:http";
import { PENSTOCK, asBuyer, buy, call, cancel, isSigned, pay } from "./penstock.mjs";

const { PENSTOCK_ADMIN = "http://127.0.0.1:9900", PORT = "3000" } = process.env;
const seen = new Set(), orders = new Map(); // a real shop has two tables of one database

/** A real shop does this in one transaction, with the event's id as a primary key. */
function take(event) {
  if (seen.has(event.id)) return; // every event may come again
  seen.add(event.id);
  const { id, status } = event.data.order;
  const isFinal = ["paid", "released", "refused"].includes(orders.get(id));
  if (!isFinal) orders.set(id, status); // never go back: events may come late
  console.log("event", event.type, id);
  server.emit("news");
}

async function rawBody(request) { // the raw bytes are what is signed
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const server = createServer(async (request, response) => {
  const body = await rawBody(request).catch(() => Buffer.alloc(0)); // cut off: no signature fits
  const signature = request.headers["penstock-signature"] ?? "";
  const isOurs = request.url === "/hooks/penstock" && isSigned(signature, body, Date.now() / 1000);
  if (isOurs) take(JSON.parse(body));
  response.writeHead(isOurs ? 200 : 401).end(); // after `take`: 200 says that the event need not come again
});

async function until(order, status) {
  while (orders.get(order.id) !== status) await once(server, "news", { signal: AbortSignal.timeout(30_000) });
}

server.listen(Number(PORT), "127.0.0.1");
const now = Date.now();
const sale = {
  id: `demo-${now}`, starts_at_ms: now - 1000, ends_at_ms: now + 3_600_000, pay_within: "10m",
  buyer_limit: 2, currency: "usd", skus: [{ sku: "shoe", stock: 100, price_minor: 1999 }],
};
await call(PENSTOCK_ADMIN.replace("http://", ""), "POST", "/admin/v1/sales", { body: JSON.stringify(sale) });
const order = await buy(sale.id, "shoe", "ann", "click-1");
const again = await buy(sale.id, "shoe", "ann", "click-1");
if (again.id !== order.id) throw new Error("one key, one order");
console.log("intent", (await pay(order, "pm_card_visa")).status);
// Answers as soon as the order is no longer reserved, at the latest after 20 seconds.
const news = `/v1/orders/${order.id}?wait=20s&status=reserved`;
console.log("order", (await call(PENSTOCK, "GET", news, { headers: asBuyer("ann") })).status);
await until(order, "paid");
const other = await buy(sale.id, "shoe", "ann", "click-2");
console.log("order", (await cancel(other, "ann")).status);
await until(other, "released");
console.log("done");
