//! The layer that refuses by the rate of a client: draws from the token buckets of the request's route.
//!
//! The decision is limiter's; limiter's own tower layer wraps one limiter around a tower `Service`, while here every route brings its own
//! list of buckets.

use std::{future::ready, rc::Rc, sync::Arc};

use futures_util::{FutureExt, future::Either};
use http::Response;
use limiter::rate::Decision;

use super::Handle;
use crate::{
    exchange::{Body, Exchange},
    http::Problem,
    limit::Bucket,
};

/// Draws from the buckets of the request's route, in the order the route names them.
#[derive(Debug)]
pub(super) struct RateLimit<S> {
    inner: S,
}

/// What became of a request at its buckets.
enum Drawn {
    /// Each gave a token; what is left in those that report it.
    All(Vec<(Arc<Bucket>, u32)>),
    /// One was empty.
    Refused(Response<Body>),
}

impl<S> RateLimit<S> {
    /// Around the other layers.
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: Handle> Handle for RateLimit<S> {
    fn handle(&self, exchange: Exchange) -> impl Future<Output = Response<Body>> {
        let reports = match draw(&exchange) {
            Drawn::All(reports) => reports,
            Drawn::Refused(refusal) => return Either::Left(ready(refusal)),
        };
        let answer = self.inner.handle(exchange);
        match reports.is_empty() {
            true => Either::Right(Either::Left(answer)),
            // Mapped: an async block would have room for the future twice, where it is captured and where it is awaited.
            false => Either::Right(Either::Right(answer.map(move |mut response| {
                for (bucket, remaining) in reports {
                    bucket.report(response.headers_mut(), remaining);
                }
                response
            }))),
        }
    }
}

fn draw(exchange: &Exchange) -> Drawn {
    let route = exchange.route.as_ref().map(Rc::as_ref);
    let buckets: &[Arc<Bucket>] = route.map_or(&[], |route| &route.limits);
    let key = |bucket: &Bucket| bucket.key(&exchange.head.headers, exchange.client_ip);
    let mut reports = Vec::new();
    for (at, bucket) in buckets.iter().enumerate() {
        match bucket.draw(key(bucket), exchange.started) {
            Decision::Limited(limited) => {
                // Refused here, it costs the limits before nothing: only requests that are served draw.
                for spent in &buckets[..at] {
                    spent.give_back(key(spent));
                }
                let mut response = Problem::Limited(limited.retry_after).response();
                bucket.mark_refused(response.headers_mut(), &limited);
                return Drawn::Refused(response);
            }
            Decision::Allowed { remaining } if bucket.config.report => {
                reports.push((Arc::clone(bucket), remaining));
            }
            Decision::Allowed { .. } => {}
        }
    }
    Drawn::All(reports)
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use http::Request;
    use limiter::rate::RateQuota;
    use tokio::time::Instant;

    use super::*;
    use crate::{
        config::{self, LimitKey},
        layers::testing::{Echo, route},
    };

    fn bucket(name: &str, burst: u32) -> Arc<Bucket> {
        let burst = NonZeroU32::new(burst).unwrap();
        let quota = RateQuota::try_new(NonZeroU32::MIN, Duration::from_secs(3600), burst);
        let config = config::Limit {
            name: name.to_owned(),
            key: LimitKey::Ip,
            quota: quota.unwrap(),
            max_keys: 16,
            report: true,
        };
        Arc::new(Bucket::new(config, None, Instant::now()))
    }

    #[tokio::test]
    async fn a_refusal_by_one_bucket_costs_the_others_nothing() {
        let (wide, narrow) = (bucket("wide", 3), bucket("narrow", 1));
        let ask = async |limits: Vec<Arc<Bucket>>| {
            let mut exchange = Exchange::for_test(Request::new(""));
            exchange.route = Some(route(|route| route.limits = limits));
            RateLimit::new(Echo).handle(exchange).await
        };
        let both = || vec![Arc::clone(&wide), Arc::clone(&narrow)];
        let first = ask(both()).await;
        assert_eq!(first.status(), 200);
        assert_eq!(first.headers().get_all("ratelimit").iter().count(), 2);
        for _ in 0..5 {
            let refused = ask(both()).await;
            assert_eq!(refused.status(), 429);
            assert!(refused.headers().contains_key("retry-after"));
        }
        // Two of three are left.
        for _ in 0..2 {
            assert_eq!(ask(vec![Arc::clone(&wide)]).await.status(), 200);
        }
        assert_eq!(ask(vec![wide]).await.status(), 429);
    }
}
