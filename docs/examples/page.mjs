// For a page of the shop: buys, and follows an order, with a token of the shop's login. `base` is empty in a page that Penstock serves.
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** `key` belongs to one wish to buy: make it when the button appears, keep it over a reload, and let every click send it again. */
export async function buy(token, sale, sku, key, base = "") {
  const headers = { authorization: `Bearer ${token}`, "idempotency-key": key, "content-type": "application/json" };
  for (let attempt = 0; attempt < 8; attempt++) {
    const body = JSON.stringify({ sku, quantity: 1 });
    const answer = await fetch(`${base}/v1/sales/${sale}/orders`, { method: "POST", headers, body }).catch(() => undefined);
    // 202 and a lost connection: not known yet. Never tell the buyer "failed"; the same key finds out.
    if (answer && ![202, 429, 502, 503, 504].includes(answer.status)) {
      const document = await answer.json();
      if (answer.ok) return document; // 201, or 200 for the same order again
      throw Object.assign(new Error(document.title), { code: document.code }); // sold_out, buyer_limit, not_started, …
    }
    await sleep(1000 * Number(answer?.headers.get("retry-after") ?? 1));
  }
  throw Object.assign(new Error("not known"), { code: "unknown" }); // the same key may be sent again later
}

/** Calls `changed` with the order as it stands and after each change, until its status is final. `EventSource` can send no header. */
export async function follow(token, id, changed, base = "") {
  const headers = { authorization: `Bearer ${token}` };
  for (;;) {
    const answer = await fetch(`${base}/v1/orders/${id}/events`, { headers }).catch(() => undefined);
    if (answer?.status === 204) return; // everything was told
    if (answer && [400, 401, 404].includes(answer.status)) throw new Error((await answer.json()).title);
    try {
      let text = "";
      for (const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader(); ;) {
        const { done, value } = await reader.read();
        if (done) break;
        const events = (text += value).split("\n\n");
        text = events.pop(); // not complete yet
        for (const event of events.filter((event) => event.includes("data: "))) {
          headers["last-event-id"] = event.match(/^id: (.*)$/m)[1];
          changed(JSON.parse(event.match(/^data: (.*)$/m)[1]));
        }
      }
    } catch { /* the stream broke off; the next one begins where this one ended */ }
    await sleep(2000);
  }
}
