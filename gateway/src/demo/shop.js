// What a shop's own page does: one request id for one wish, kept over retries, so that a double click buys once.
const buyer = localStorage.buyer ??= "visitor-" + crypto.randomUUID();
const request = localStorage.request ??= crypto.randomUUID();
const show = (value) => { document.getElementById("answer").textContent = JSON.stringify(value, null, 2); };

async function poll(id) {
  const answer = await fetch("/v1/orders/" + id, { headers: { "x-buyer-id": buyer } });
  const order = await answer.json();
  show(order);
  if (order.status === "reserved" || order.status === "paying") setTimeout(poll, 1000, id);
}

document.getElementById("buy").addEventListener("click", async () => {
  const answer = await fetch("/v1/sales/demo/orders", {
    method: "POST",
    headers: { "content-type": "application/json", "idempotency-key": request, "x-buyer-id": buyer },
    body: JSON.stringify({ sku: "trail-shoe", quantity: 1 }),
  });
  const body = await answer.json();
  show(body);
  if (answer.ok && body.id) poll(body.id);
});
