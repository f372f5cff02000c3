//! Requests that leave HTTP: WebSocket and whatever else `Upgrade` names. The handshake goes through like any request; after a
//! 101 the two connections become one tunnel of bytes until either side closes.
//!
//! Every upgrade has a connection of its own, which never sees the pool. A tunnel counts as in flight while draining.

use std::rc::Rc;

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, UPGRADE},
};
use http_body_util::Empty;
use hyper::{client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncWriteExt, copy, split},
    net::TcpStream,
    time::{Instant, timeout},
};
use tracing::debug;

use crate::{
    body::Body,
    core::Core,
    exchange::Exchange,
    forward::{Walked, client_bits, record, rewrite_request},
    metrics::Attempt,
    problem::Problem,
    upstream::{Upstream, endpoint::Admission},
};

/// Sends the handshake to an endpoint and, if it agrees, tunnels.
pub async fn upgrade(
    core: &Rc<Core>,
    upstream: &Upstream,
    exchange: Exchange<'_>,
) -> Response<Body> {
    let mut head = exchange.head;
    let Some(from_client) = head.extensions.remove::<OnUpgrade>() else {
        return Problem::BadRequest.response();
    };
    let protocol = head.headers.get(UPGRADE).cloned();
    let bits = client_bits(exchange.client_ip);
    let candidates = upstream.candidates(&bits, &head.headers, &head.uri);
    rewrite_request(&mut head, exchange.client);
    // A handshake has no body, and what follows it is not one.
    head.headers.remove(CONTENT_LENGTH);
    head.headers
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        head.headers.insert(UPGRADE, protocol);
    }
    let request = Request::from_parts(head, Empty::<Bytes>::new());

    let config = &upstream.shared.config;
    let meters = core.meters.upstream(upstream.index);
    let mut walked = Walked::default();
    for candidate in candidates {
        let endpoint = &upstream.shared.endpoints[candidate];
        let permit = match endpoint.admit(Instant::now()) {
            Admission::Granted(permit) => permit,
            Admission::Unhealthy => continue,
            Admission::Rejected(retry_after) => {
                meters.rejected.add();
                walked.note(Problem::BreakerOpen(retry_after));
                continue;
            }
        };
        let connected = timeout(
            config.connect_timeout,
            TcpStream::connect(endpoint.address()),
        )
        .await;
        let Ok(Ok(stream)) = connected else {
            meters.connects_failed.add();
            meters.attempt(Attempt::Error);
            record(permit, false, Instant::now());
            walked.note(Problem::BadGateway);
            continue;
        };
        meters.connects_ok.add();
        let answer = timeout(config.response_timeout, handshake(stream, request)).await;
        record(permit, matches!(answer, Ok(Ok(_))), Instant::now());
        return match answer {
            Ok(Ok(response)) => {
                meters.attempt(Attempt::Ok);
                finish(core, response, from_client)
            }
            Ok(Err(error)) => {
                debug!(%error, "upgrade failed");
                meters.attempt(Attempt::Error);
                Problem::BadGateway.response()
            }
            Err(_elapsed) => {
                meters.attempt(Attempt::Timeout);
                Problem::UpstreamTimeout.response()
            }
        };
    }
    walked.problem().response()
}

async fn handshake(
    stream: TcpStream,
    request: Request<Empty<Bytes>>,
) -> hyper::Result<Response<hyper::body::Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "upgraded connection ended");
        }
    });
    sender.send_request(request).await
}

/// Answers the client. On 101 the tunnel starts when both connections have let go of HTTP.
fn finish(
    core: &Rc<Core>,
    mut response: Response<hyper::body::Incoming>,
    from_client: OnUpgrade,
) -> Response<Body> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        crate::headers::remove_hop_by_hop(response.headers_mut());
        return response.map(|body| Body::Handler(axum::body::Body::new(body)));
    }
    let to_endpoint = hyper::upgrade::on(&mut response);
    let place = core.take_place();
    let cut = core.cut.clone();
    tokio::task::spawn_local(async move {
        let _place = place;
        let (Ok(client), Ok(endpoint)) = (from_client.await, to_endpoint.await) else {
            return;
        };
        let (mut from_client, mut to_client) = split(TokioIo::new(client));
        let (mut from_endpoint, mut to_endpoint) = split(TokioIo::new(endpoint));
        // Either side's end is the end of both: a peer that has only half closed keeps no tunnel open for ever.
        tokio::select! {
            ended = copy(&mut from_client, &mut to_endpoint) => debug!(?ended, "client closed the tunnel"),
            ended = copy(&mut from_endpoint, &mut to_client) => debug!(?ended, "endpoint closed the tunnel"),
            () = cut.notified() => {}
        }
        let _ = tokio::join!(to_client.shutdown(), to_endpoint.shutdown());
    });
    response.map(|_| Body::EMPTY)
}
