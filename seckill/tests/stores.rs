//! The conformance suite on every store.

use crate::support::redis::{shared, shared_cluster, subject};

seckill::stock_store_conformance!(on_redis, subject(&shared().url()));
seckill::stock_store_conformance!(on_a_redis_cluster, subject(&shared_cluster().url()));
