// What a shop needs to sell through Penstock. Copy it: it needs Node 18 or later, and no packages.
import { createHmac, timingSafeEqual } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

export const { PENSTOCK = "127.0.0.1:8080" } = process.env;
const { PENSTOCK_PAYMENT_KEY, PENSTOCK_DOWNSTREAM_SECRET, PENSTOCK_LOGIN_KEY } = process.env;

/** Whether Penstock signed exactly these bytes, and not too long ago. */
export function isSigned(header, body, nowS, toleranceS = 300) {
  const [, t, v1] = header.match(/^t=([0-9]{1,15}),v1=([0-9a-f]{64})\b/) ?? [];
  if (!t || Math.abs(nowS - Number(t)) > toleranceS) return false;
  const expected = createHmac("sha256", PENSTOCK_DOWNSTREAM_SECRET).update(`${t}.`).update(body).digest();
  return timingSafeEqual(expected, Buffer.from(v1, "hex"));
}

/** One call, repeated while that may help. 202 means "not known yet". The Idempotency-Key makes repeating safe. */
export async function call(host, method, path, { body, headers } = {}) {
  for (let attempt = 0; attempt < 8; attempt++) {
    const request = { method, body, headers, signal: AbortSignal.timeout(40_000) };
    const answer = await fetch(`http://${host}${path}`, request).catch(() => undefined);
    const text = await answer?.text().catch(() => undefined);
    // Without an answer the connection was lost: nobody knows whether the request arrived.
    if (text !== undefined) {
      if (answer.status === 200 || answer.status === 201) return JSON.parse(text);
      const mayHelp = [202, 429, 502, 503, 504].includes(answer.status);
      if (!mayHelp && answer.headers.get("stripe-should-retry") !== "true")
        throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    }
    await sleep(1000 * Number(answer?.headers.get("retry-after") ?? Math.min(0.1 * 2 ** attempt, 5)));
  }
  throw new Error(`${method} ${path}: still not known`);
}

/** Who buys: a header that this machine may set or, with `buyer = "jwt:sub"`, a token of the shop's login. */
export function asBuyer(buyer) {
  if (!PENSTOCK_LOGIN_KEY) return { "x-buyer-id": buyer };
  const coded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = { sub: buyer, exp: Math.floor(Date.now() / 1000) + 600 };
  const token = `${coded({ alg: "HS256" })}.${coded(claims)}`;
  const signature = createHmac("sha256", PENSTOCK_LOGIN_KEY).update(token).digest("base64url");
  return { authorization: `Bearer ${token}.${signature}` };
}

export function buy(sale, sku, buyer, key) {
  const headers = { ...asBuyer(buyer), "idempotency-key": key, "content-type": "application/json" };
  return call(PENSTOCK, "POST", `/v1/sales/${sale}/orders`, { body: JSON.stringify({ sku, quantity: 1 }), headers });
}

export function pay({ id, amount_minor: amount, currency }, payment_method) {
  const body = new URLSearchParams({ amount, currency, "metadata[order]": id, payment_method, confirm: "true" });
  const headers = { authorization: `Bearer ${PENSTOCK_PAYMENT_KEY}`, "idempotency-key": `pay-${id}` };
  return call(PENSTOCK, "POST", "/v1/payment_intents", { body, headers });
}

export function cancel({ id }, buyer) {
  return call(PENSTOCK, "DELETE", `/v1/orders/${id}`, { headers: asBuyer(buyer) });
}
