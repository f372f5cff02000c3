// What a shop's own page does. One request id for one wish, kept over retries and reloads, so that a double click buys once; a new one
// when that order is over.
const SALE = "corner";
const SKU = "trail-shoe";
const part = (id) => document.getElementById(id);
const buyer = localStorage.buyer ??= "visitor-" + Math.random().toString(36).slice(2);
let order = null;

const REFUSED = {
  sold_out: "Sold out.",
  buyer_limit: "You have as many pairs as one buyer may have.",
  not_started: "The sale has not begun yet.",
  ended: "The sale is over.",
  no_such_sale: "Nothing is on sale here yet: it begins when the peak of the demo is over.",
};
const STATES = {
  reserved: (left) => `It is yours if you pay within ${left}.`,
  paying: () => "The payment is under way.",
  paid: () => "Paid. Thank you!",
  released: () => "The order was given back, and the pair is on sale again.",
  refused: () => "The order could not be kept.",
};

const isOver = (one) => !["reserved", "paying"].includes(one.status);

function show(text, answer) {
  part("state").textContent = text;
  if (answer) part("answer").textContent = JSON.stringify(answer, null, 2);
  const status = order?.status;
  part("buy").hidden = status === "reserved" || status === "paying";
  part("buy").textContent = status ? "Buy another" : "Buy one";
  part("pay").hidden = part("cancel").hidden = status !== "reserved";
}

function tell(answer) {
  const left = Math.max(0, Math.round((order.pay_by_ms - Date.now()) / 1000));
  const clock = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")} min`;
  show(STATES[order.status](clock), answer);
  // An order that is over is over: the next click is a new wish.
  if (isOver(order)) delete localStorage.request;
}

async function call(method, path, headers = {}, body = undefined) {
  const answer = await fetch(path, { method, body, headers: { "x-buyer-id": buyer, ...headers } });
  return [answer, await answer.json().catch(() => ({}))];
}

async function follow() {
  const id = order?.id;
  while (order && order.id === id && (order.status === "reserved" || order.status === "paying")) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const [answer, now] = await call("GET", "/v1/orders/" + id);
    if (answer.ok && order?.id === id) {
      order = now;
      tell(now);
    }
  }
}

async function buy() {
  order = null;
  const request = localStorage.request ??= "wish-" + Math.random().toString(36).slice(2);
  part("buy").disabled = true;
  const headers = { "content-type": "application/json", "idempotency-key": request };
  const body = JSON.stringify({ sku: SKU, quantity: 1 });
  const [answer, found] = await call("POST", `/v1/sales/${SALE}/orders`, headers, body);
  part("buy").disabled = false;
  if (!answer.ok || !found.id) {
    show(REFUSED[found.code] ?? found.detail ?? "No answer yet. Try again in a moment.", found);
    return;
  }
  if (isOver(found) && answer.status === 200) {
    // It ended while nobody looked: this click is a new wish.
    delete localStorage.request;
    return buy();
  }
  order = found;
  tell(found);
  follow();
}

async function pay() {
  part("pay").disabled = true;
  const body = new URLSearchParams({ order: order.id });
  // The shop's server pays: it alone has the secret key.
  const [answer, paid] = await call("POST", "/pay", {}, body);
  part("pay").disabled = false;
  if (!answer.ok) show("The payment did not go through: " + (paid.error ?? "try again") + ".", paid);
}

async function cancel() {
  const [answer, found] = await call("DELETE", "/v1/orders/" + order.id);
  if (answer.ok) order = found;
  tell(found);
}

part("buy").addEventListener("click", buy);
part("pay").addEventListener("click", pay);
part("cancel").addEventListener("click", cancel);
