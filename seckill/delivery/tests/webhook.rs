//! The shop is never run over: its own rate, its own bound of requests in flight, and its `Retry-After`.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use delivery::{DeliveryConfig, Receiver, Sink, WebhookOptions};
use limiter::rate::RateQuota;
use tokio::{sync::Notify, time::Instant};

use crate::support::{
    memory_outbox::{MemoryOutbox, order_id},
    outbox::{Received, Running, all_delivered, deliverer, impatient, judge, open, soon},
};

type Answer = dyn Fn(usize, &Received) -> Response + Send + Sync;

/// A shop that answers by a function of how many requests came before.
#[derive(Clone)]
struct Shop {
    answer: Arc<Answer>,
    takes: Duration,
    seen: Arc<Mutex<Vec<(Instant, Received)>>>,
    taken: Arc<Mutex<Vec<Received>>>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Shop {
    fn new(answer: impl Fn(usize, &Received) -> Response + Send + Sync + 'static) -> Self {
        Self {
            answer: Arc::new(answer),
            takes: Duration::ZERO,
            seen: Arc::default(),
            taken: Arc::default(),
            now: Arc::default(),
            most: Arc::default(),
        }
    }

    async fn start(&self) -> String {
        let app = Router::new()
            .route("/hook", post(receive))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}/hook")
    }

    fn seen(&self) -> Vec<(Instant, Received)> {
        self.seen.lock().unwrap().clone()
    }

    fn taken(&self) -> Vec<Received> {
        self.taken.lock().unwrap().clone()
    }
}

async fn receive(State(shop): State<Shop>, headers: HeaderMap, body: Bytes) -> Response {
    let now = shop.now.fetch_add(1, Ordering::SeqCst) + 1;
    shop.most.fetch_max(now, Ordering::SeqCst);
    let id = headers["penstock-event-id"].to_str().unwrap();
    let message = Received::new(id, &body);
    let before = {
        let mut seen = shop.seen.lock().unwrap();
        seen.push((Instant::now(), message.clone()));
        seen.len() - 1
    };
    tokio::time::sleep(shop.takes).await;
    let response = (shop.answer)(before, &message);
    if response.status().is_success() {
        shop.taken.lock().unwrap().push(message);
    }
    shop.now.fetch_sub(1, Ordering::SeqCst);
    response
}

fn ok() -> Response {
    StatusCode::OK.into_response()
}

fn sink(url: String, rate: &str, burst: u32, in_flight: usize) -> Arc<dyn Sink> {
    patient_sink(url, rate, burst, in_flight, Duration::from_secs(2))
}

fn patient_sink(
    url: String,
    rate: &str,
    burst: u32,
    in_flight: usize,
    patience: Duration,
) -> Arc<dyn Sink> {
    let burst = burst.try_into().unwrap();
    let rate = settings::units::rate(rate).unwrap();
    let options = WebhookOptions {
        url: url.parse().unwrap(),
        tls: None,
        secret: b"a shared secret of the tests".to_vec(),
        quota: RateQuota::try_new(rate.count, rate.per, burst).unwrap(),
        in_flight: in_flight.try_into().unwrap(),
    };
    open(Receiver::Webhook(options), patience)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_sees_its_burst_and_then_its_rate_and_never_more() {
    let shop = Shop::new(|_, _| ok());
    let sink = sink(shop.start().await, "100/s", 20, 16);
    let test = MemoryOutbox::default();
    test.settle(0, 120);
    test.pay(0..30);
    let running = Running::start(deliverer(&test, sink, impatient()));
    all_delivered(&test).await;
    running.stop().await;
    assert_eq!(judge(&shop.taken(), 120, 30), 0);
    // In every window: the burst, what the rate brings in that time, and one for the edges. Arrival may be late and bunched by
    // the scheduler, by less than a tenth of a second's worth.
    let seen: Vec<Instant> = shop.seen().into_iter().map(|(at, _)| at).collect();
    for (first, from) in seen.iter().enumerate() {
        for (last, to) in seen.iter().enumerate().skip(first) {
            let allowed = 20.0 + 100.0 * ((*to - *from).as_secs_f64() + 0.1) + 1.0;
            let count = (last - first + 1) as f64;
            assert!(count <= allowed, "{count} requests in {:?}", *to - *from);
        }
    }
    assert!(
        seen[149] - seen[0] >= Duration::from_millis(1_200),
        "{:?}",
        seen[149] - seen[0]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_requests_are_in_flight_than_configured() {
    let mut shop = Shop::new(|_, _| ok());
    shop.takes = Duration::from_millis(20);
    let sink = sink(shop.start().await, "100000/s", 100_000, 3);
    let test = MemoryOutbox::default();
    test.settle(0, 60);
    let running = Running::start(deliverer(&test, sink, impatient()));
    all_delivered(&test).await;
    running.stop().await;
    assert_eq!(shop.most.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_holds_back_all_events() {
    for status in [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ] {
        let shop = Shop::new(move |before, _| match before {
            0 => (status, [(header::RETRY_AFTER, "1")]).into_response(),
            _ => ok(),
        });
        // One at a time: what is on its way when the shop speaks up cannot be taken back.
        let sink = sink(shop.start().await, "100000/s", 100_000, 1);
        let test = MemoryOutbox::default();
        test.settle(0, 50);
        let running = Running::start(deliverer(&test, sink, impatient()));
        all_delivered(&test).await;
        running.stop().await;
        let seen = shop.seen();
        let gap = seen[1].0 - seen[0].0;
        assert!(gap >= Duration::from_millis(990), "{status}: {gap:?}");
        assert_eq!(seen.len(), 51, "{status}");
        judge(&shop.taken(), 50, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_order_that_fails_holds_up_only_its_own_events() {
    // The third order's settlement is refused four times, by an error, by a hang and by two busy answers without a time.
    let refused = Arc::new(AtomicUsize::new(0));
    let shop = Shop::new({
        let refused = refused.clone();
        move |_, message| {
            let is_third = message.order() == order_id(2);
            if is_third && refused.fetch_add(1, Ordering::SeqCst) < 4 {
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
            ok()
        }
    });
    let sink = sink(shop.start().await, "100000/s", 100_000, 8);
    let test = MemoryOutbox::default();
    test.settle(0, 40);
    test.pay(0..40);
    let running = Running::start(deliverer(&test, sink, impatient()));
    soon("all others are told", async || test.pending() <= 2).await;
    assert!(
        refused.load(Ordering::SeqCst) <= 4,
        "the third order waited, the others did not"
    );
    all_delivered(&test).await;
    running.stop().await;
    judge(&shop.taken(), 40, 40);
    assert!(refused.load(Ordering::SeqCst) > 4);
}

/// A shop in front of the shop that keeps the first request waiting until it is let go; and how many requests it got.
async fn hanging_first(shop: &Shop, let_go: Arc<Notify>) -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let front = Router::new().route(
        "/hook",
        post({
            let (asked, shop) = (asked.clone(), shop.clone());
            move |headers: HeaderMap, body: Bytes| async move {
                if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                    let_go.notified().await;
                }
                receive(State(shop), headers, body).await
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, front).await });
    (url, asked)
}

// One slow answer used to hold up the whole round that it was in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_delivery_holds_up_no_other() {
    let (shop, let_go) = (Shop::new(|_, _| ok()), Arc::new(Notify::new()));
    let test = MemoryOutbox::default();
    test.settle(0, 600);
    let (url, asked) = hanging_first(&shop, let_go.clone()).await;
    // On no machine do the others take as long as the hanging one is waited for.
    let patience = Duration::from_secs(600);
    let sink = patient_sink(url, "100000/s", 100_000, 4, patience);
    let config = DeliveryConfig {
        lease: 2 * patience,
        ..impatient()
    };
    let running = Running::start(deliverer(&test, sink, config));
    soon("599 others are told", async || shop.taken().len() == 599).await;
    assert_eq!(
        asked.load(Ordering::SeqCst),
        600,
        "the first one still hangs, and nothing was sent twice"
    );
    let_go.notify_one();
    all_delivered(&test).await;
    running.stop().await;
    assert_eq!(judge(&shop.taken(), 600, 0), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_without_an_answer_is_given_up_and_tried_again() {
    let shop = Shop::new(|_, _| ok());
    let test = MemoryOutbox::default();
    test.settle(0, 3);
    // Nobody lets it go.
    let (url, asked) = hanging_first(&shop, Arc::default()).await;
    let patience = Duration::from_millis(500);
    let sink = patient_sink(url, "100000/s", 100_000, 4, patience);
    let began = Instant::now();
    let running = Running::start(deliverer(&test, sink, impatient()));
    all_delivered(&test).await;
    assert!(began.elapsed() >= patience, "{:?}", began.elapsed());
    running.stop().await;
    assert!(asked.load(Ordering::SeqCst) > 3);
    judge(&shop.taken(), 3, 0);
}
