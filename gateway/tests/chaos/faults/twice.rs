//! Second deliveries: what buyers send arrives once more, byte for byte, when they have their answer or have gone.

use std::{net::SocketAddr, str};

use loadtest::history::{
    Action, Event,
    event::{Done, Invoke},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, sleep, timeout},
};

use crate::{goods::SALE, market::tokens, proxy::Proxy, recorder::HistoryRecorder};

/// Who sent it, in the history.
const CLIENT: u32 = 96;
/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// Copies what passes the front for a while, and delivers the purchases and cancellations among it again.
pub async fn deliver(front: &Proxy, lasts: Duration, recorder: &HistoryRecorder, what: &str) {
    let number = recorder.breaks("twice", what);
    let mut copies = front.copy_requests();
    sleep(lasts).await;
    front.copy_no_more();
    let mut requests = Vec::new();
    while let Ok(request) = copies.try_recv() {
        requests.extend(read(&request).map(|invoke| (invoke, request)));
    }
    let target = front.target();
    let all = requests.into_iter().map(|(invoke, request)| async move {
        let op = recorder.invoke(invoke);
        let _ = timeout(PATIENCE, send(target, &request)).await;
        // Whatever it was told, nobody has heard it.
        let code = "repeated".to_owned();
        recorder.done(
            op,
            Event::Info,
            Done {
                code,
                ..Done::default()
            },
        );
    });
    futures_util::future::join_all(all).await;
    recorder.mends(number, "twice", what);
}

async fn send(target: SocketAddr, request: &[u8]) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(request).await?;
    // A connection stays open for another request; the first bytes of an answer mean that this one is decided.
    let mut answer = [0; 1024];
    stream.read(&mut answer).await.map(drop)
}

/// What a request asks for, if it buys or cancels one order and is whole. (A cart that is given back names none of its lines.)
fn read(request: &[u8]) -> Option<Invoke> {
    let text = str::from_utf8(request).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let header = |name: &str| {
        let named = headers.iter().find(|(at, _)| at.eq_ignore_ascii_case(name));
        named.map(|(_, value)| (*value).to_owned())
    };
    let length = header("content-length").map_or(Some(0), |text| text.parse().ok())?;
    if body.len() != length {
        return None;
    }
    let buyer = header("x-buyer-id")?;
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (method, parts.as_slice()) {
        ("POST", ["v1", "sales", sale, what @ ("orders" | "carts")]) => {
            let body: Value = serde_json::from_str(body).ok()?;
            let line = |line: &Value| {
                let sku = line["sku"].as_str()?.to_owned();
                Some((sku, line["quantity"].as_u64()?))
            };
            let (f, lines) = match *what {
                "carts" => {
                    let lines = body["lines"].as_array()?.iter().map(line);
                    (Action::CartBuy, lines.collect::<Option<_>>()?)
                }
                _ => (Action::Buy, vec![line(&body)?]),
            };
            let (token, request) = match header("penstock-entitlement") {
                Some(token) => tokens::id_and_request(&token)?,
                None => (String::new(), header("idempotency-key")?),
            };
            Some(Invoke {
                client: CLIENT,
                buyer,
                request,
                lines,
                token,
                ..Invoke::new(f, *sale)
            })
        }
        ("DELETE", ["v1", "orders", order]) => Some(Invoke {
            client: CLIENT,
            buyer,
            order: (*order).to_owned(),
            ..Invoke::new(Action::Cancel, SALE)
        }),
        _ => None,
    }
}

#[cfg(test)]
use crate::market::tokens::{Token, Worth};

#[test]
fn whole_purchases_and_cancellations_are_read_and_nothing_else() {
    let buy = "POST /v1/sales/s/orders HTTP/1.1\r\nhost: h\r\nx-buyer-id: b\r\nidempotency-key: k\r\ncontent-length: 27\r\n\r\n\
               {\"quantity\":2,\"sku\":\"shoe\"}";
    let read_text = |text: &str| read(text.as_bytes());
    let found = read_text(buy).unwrap();
    assert_eq!((found.f, found.sale.as_str()), (Action::Buy, "s"));
    assert_eq!((found.buyer.as_str(), found.request.as_str()), ("b", "k"));
    assert_eq!(found.lines, [("shoe".to_owned(), 2)]);
    let cart = "POST /v1/sales/s/carts HTTP/1.1\r\nx-buyer-id: b\r\nidempotency-key: k\r\ncontent-length: 67\r\n\r\n\
                {\"lines\":[{\"quantity\":2,\"sku\":\"shoe\"},{\"quantity\":1,\"sku\":\"sock\"}]}";
    let found = read_text(cart).unwrap();
    assert_eq!((found.f, found.lines.len()), (Action::CartBuy, 2));
    let token = Token::sign("b", "shoe", "t1".to_owned(), Worth::Good);
    let entitled = format!("penstock-entitlement: {}\r\nhost", token.text);
    let found = read_text(&buy.replace("host", &entitled)).unwrap();
    assert_eq!((found.token, found.request), (token.id, token.request));
    let cancel = read_text("DELETE /v1/orders/o1 HTTP/1.1\r\nx-buyer-id: b\r\n\r\n").unwrap();
    assert_eq!((cancel.f, cancel.order.as_str()), (Action::Cancel, "o1"));
    for none in [
        &buy[..buy.len() - 1],
        "GET /v1/orders/o1 HTTP/1.1\r\nx-buyer-id: b\r\n\r\n",
        "DELETE /v1/orders/o1 HTTP/1.1\r\n\r\n",
        "nonsense",
    ] {
        assert!(read_text(none).is_none(), "{none}");
    }
}
