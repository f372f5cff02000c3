"""`penstock demo --keep`: its lines fit 80 columns, and its shop sells from the product page to the paid order."""

import json
import re
import tempfile
import unittest
import urllib.error
import urllib.parse
import urllib.request

import running


def ask(url, method="GET", headers=None, form=None, document=None):
    """Status and answer."""
    body = None
    headers = dict(headers or {})
    if form is not None:
        body = urllib.parse.urlencode(form).encode()
    if document is not None:
        body = json.dumps(document).encode()
        headers["content-type"] = "application/json"
    request = urllib.request.Request(url, data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Keep(unittest.TestCase):
    def test_from_the_product_page_to_the_paid_order(self):
        with tempfile.TemporaryDirectory() as folder:
            command = [str(running.PENSTOCK), "demo", "--keep", "--plain", "--buyers", "300", "--stock", "30"]
            demo = running.Program(command, folder, {"TMPDIR": folder})
            try:
                page = demo.until(lambda line: re.search(r"product page +(http://\S+)", line)).group(1)
                too_wide = [line for line in demo.seen if len(line.rstrip()) > 80]
                self.assertEqual(too_wide, [])
                self.sells(page)
            finally:
                demo.stop()

    def sells(self, page):
        status, text = ask(page)
        self.assertEqual(status, 200)
        self.assertIn("/shop.js", text)
        origin = page.rsplit("/products/", 1)[0]
        script = ask(origin + "/shop.js")[1]
        sale, sku = (re.search(f'{name} = "([^"]+)"', script).group(1) for name in ("SALE", "SKU"))
        buyer = {"x-buyer-id": "visitor-1"}
        orders = f"{origin}/v1/sales/{sale}/orders"
        status, text = ask(orders, "POST", {**buyer, "idempotency-key": "wish-1"}, document={"sku": sku, "quantity": 1})
        self.assertEqual(status, 201, text)
        order = json.loads(text)
        # Long enough to find the button.
        self.assertGreater(order["pay_by_ms"] - order["created_at_ms"], 300_000)
        status, text = ask(origin + "/pay", "POST", form={"order": order["id"]})
        self.assertEqual(status, 200, text)
        self.assertEqual(json.loads(text)["status"], "succeeded")
        status, text = ask(f"{origin}/v1/orders/{order['id']}?wait=10s&status=reserved", headers=buyer)
        self.assertEqual(json.loads(text)["status"], "paid", text)
        # A new wish is a new order, and may be given back.
        status, text = ask(orders, "POST", {**buyer, "idempotency-key": "wish-2"}, document={"sku": sku, "quantity": 1})
        second = json.loads(text)
        self.assertNotEqual(second["id"], order["id"])
        for _ in range(50):
            status, text = ask(f"{origin}/v1/orders/{second['id']}", "DELETE", buyer)
            if status != 409:
                break
        self.assertEqual((status, json.loads(text)["status"]), (200, "released"))
        status, text = ask(origin + "/pay", "POST", form={"order": second["id"]})
        self.assertEqual(status, 402)
        self.assertTrue(json.loads(text)["error"])


if __name__ == "__main__":
    unittest.main()
