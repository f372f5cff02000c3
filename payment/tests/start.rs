//! What a process starts with: a key that is made when there is none, and channels that can be told apart.

use std::sync::Arc;

use payment::{ApiKey, Config, RegistryError, Setup, StartError};

use crate::support::{Api, Db, ScriptedChannel};

fn setup(db: &Db, config: Config) -> Setup {
    Setup {
        config,
        pool: db.pool.clone(),
        readers: db.pool.clone(),
        participant: None,
        clock: Arc::new(|| 1_760_000_000_000),
        seed: [1; 32],
        new_key: 7,
        work_until: None,
    }
}

#[tokio::test]
async fn a_key_that_is_not_there_is_made_and_opens_the_api() {
    let db = Db::sqlite().await;
    db.lay().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("api.key");
    let mut config = Config::for_key("unused");
    config.api_key = ApiKey::ToCreate(file.clone());
    let payments = payment::start(setup(&db, config.clone())).unwrap();
    let key: &'static str = std::fs::read_to_string(&file).unwrap().leak();
    let list = Api::new(payments.router, key)
        .get("/v1/payment_intents")
        .await;
    assert_eq!(list.status, 200);
    assert_eq!(payments.reader.books().check().await.unwrap(), []);
    // The file is there now; a request that still says otherwise is refused, and the key stays.
    let again = payment::start(setup(&db, config));
    assert!(matches!(again, Err(StartError::ApiKey(_))));
}

#[tokio::test]
async fn channels_of_one_name_do_not_start() {
    let db = Db::sqlite().await;
    let channel = || Arc::new(ScriptedChannel::named("one")) as _;
    let twice = vec![channel(), channel()];
    let refused = payment::start_with(setup(&db, Config::for_key("sk_test_1")), twice);
    assert!(matches!(
        refused,
        Err(StartError::Channels(RegistryError::Twice { name: "one" }))
    ));
}
