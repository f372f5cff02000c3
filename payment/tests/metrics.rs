//! Every metric is there at zero before the first payment, and counts.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusBuilder;
use payment::{Config, Setup};

use crate::support::{Api, Db, KEY};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_start_at_zero_and_count() {
    let db = Db::sqlite().await;
    db.lay().await.unwrap();
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    let mut config = Config::for_key(KEY);
    config.simulator.latency = std::time::Duration::ZERO;
    let payments = metrics::with_local_recorder(&recorder, || {
        payment::start(Setup {
            config,
            pool: db.pool.clone(),
            readers: db.pool.clone(),
            participant: None,
            clock: Arc::new(|| 1_760_000_000_000),
            seed: [1; 32],
            new_key: 0,
            work_until: None,
        })
    });
    let payments = payments.unwrap();
    assert!(payments.tasks.is_empty(), "others do the work");
    let text = shown.render();
    for series in [
        r#"penstock_payment_attempts_total{channel="simulator",outcome="succeeded"} 0"#,
        r#"penstock_payment_attempts_total{channel="simulator",outcome="declined"} 0"#,
        r#"penstock_payment_attempts_total{channel="simulator",outcome="unknown"} 0"#,
        r#"penstock_payment_attempts_total{channel="simulator",outcome="error"} 0"#,
        r#"penstock_payment_amount_minor_total{currency="usd"} 0"#,
        "penstock_payment_idempotent_replays_total 0",
        "penstock_payment_in_doubt 0",
        "penstock_payment_late_refunds_total 0",
    ] {
        assert!(text.contains(series), "{series}\n{text}");
    }

    let api = Api::new(payments.router.clone(), KEY);
    let pay = async |method: &str| {
        let body = format!("amount=1999&currency=usd&confirm=true&payment_method={method}");
        api.post_with_key("/v1/payment_intents", &body, method)
            .await
    };
    assert_eq!(pay("pm_card_visa").await.status, 200);
    assert_eq!(pay("pm_card_visa").await.status, 200);
    assert_eq!(pay("pm_card_chargeDeclined").await.status, 402);
    assert_eq!(pay("pm_card_answerLost").await.text("status"), "processing");
    let text = shown.render();
    for series in [
        r#"penstock_payment_attempts_total{channel="simulator",outcome="succeeded"} 1"#,
        r#"penstock_payment_attempts_total{channel="simulator",outcome="declined"} 1"#,
        r#"penstock_payment_attempts_total{channel="simulator",outcome="unknown"} 1"#,
        r#"penstock_payment_amount_minor_total{currency="usd"} 1999"#,
        "penstock_payment_idempotent_replays_total 1",
        "penstock_payment_in_doubt 1",
        r#"penstock_payment_duration_seconds_count{channel="simulator"} 3"#,
    ] {
        assert!(text.contains(series), "{series}\n{text}");
    }
    payments.resolver.pass(1_760_000_001_000).await.unwrap();
    assert!(shown.render().contains("penstock_payment_in_doubt 0"));
}
