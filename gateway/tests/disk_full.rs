//! A whole process whose disk takes nothing more, and then does: by the kernel's own limit of a file's size, which needs no
//! privileges. `seckill/stock/tests/embedded_disk.rs` has the single faults.

use std::{process::Command, time::Duration};

use tokio::time::Instant;

use crate::{
    crash::create_sale,
    process::{Penstock, eventually},
    support::{header, raw, status},
};

/// Sets the soft limit of the process; the hard one stays, so that it can be raised again.
fn limit_files(penstock: &Penstock, bytes: &str) {
    let pid = penstock.process.id().to_string();
    let limit = format!("--fsize={bytes}:");
    let set = Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .output();
    let set = set.expect("prlimit; install it: apt-get install util-linux");
    assert!(
        set.status.success(),
        "{}",
        String::from_utf8_lossy(&set.stderr)
    );
}

async fn buy(penstock: &Penstock, n: u32) -> String {
    let body = r#"{"sku":"shoe","quantity":1}"#;
    let request = format!(
        "POST /v1/sales/crash/orders HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nx-buyer-id: b{n}\r\n\
         Idempotency-Key: r{n}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    raw(penstock.http, &request).await
}

async fn admin(penstock: &Penstock, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    raw(penstock.admin, &request).await
}

#[tokio::test]
async fn a_process_without_room_refuses_says_so_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let stores = format!(
        "store = \"embedded:{0}/journal\"\nledger = \"sqlite:{0}/ledger.db\"\ndurability = \"durable\"",
        folder.path().display()
    );
    let penstock = Penstock::start(folder.path(), &stores).await;
    create_sale(penstock.admin);
    assert_eq!(status(&buy(&penstock, 0).await), 201);

    limit_files(&penstock, "1");
    // The first may be in the air; what follows is refused, and told when to come back.
    let first = status(&buy(&penstock, 1).await);
    assert!(first == 202 || first == 503, "{first}");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let refused = buy(&penstock, 2).await;
        if status(&refused) == 503 {
            assert!(header(&refused, "retry-after").is_some(), "{refused}");
            break;
        }
        assert_eq!(status(&refused), 202, "{refused}");
        assert!(Instant::now() < deadline, "never refused");
    }
    let ready = admin(&penstock, "/ready?parts=journal").await;
    assert_eq!(status(&ready), 503);
    assert!(ready.contains("journal"), "{ready}");
    let metrics = admin(&penstock, "/metrics").await;
    assert!(metrics.contains("penstock_journal_writable 0"), "{metrics}");

    limit_files(&penstock, "unlimited");
    eventually("purchases go on", || async {
        matches!(status(&buy(&penstock, 3).await), 200 | 201)
    })
    .await;
    eventually("it is ready again", || async {
        status(&admin(&penstock, "/ready?parts=sales,journal").await) == 200
    })
    .await;
    // Whatever was in the air has one outcome by now.
    for n in 0..4 {
        eventually("each has its order", || async {
            matches!(status(&buy(&penstock, n).await), 200 | 201)
        })
        .await;
    }
    eventually("all is settled, each once", || async {
        let report = admin(&penstock, "/admin/v1/sales/crash/report").await;
        report.contains("\"settled\":4") && report.contains("\"accepted\":4")
    })
    .await;
}
