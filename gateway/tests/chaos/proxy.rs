//! A TCP proxy for one link, that damages it by command.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::{mpsc, watch},
    time::sleep,
};

use crate::plan::Damage;

/// The longest request that is copied.
const LARGEST_COPY: usize = 64 << 10;

/// What passes through the link now.
#[derive(Debug, Clone)]
struct State {
    target: SocketAddr,
    damage: Option<Damage>,
    /// Connections made before the last reset or cut are closed.
    generation: u64,
    /// Where what clients sent goes as well, a connection at a time.
    copies: Option<mpsc::UnboundedSender<Vec<u8>>>,
}

/// A link; it lives as long as this.
pub struct Proxy {
    pub address: SocketAddr,
    state: watch::Sender<State>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// A link to `target` on a free port.
    pub async fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, watched) = watch::channel(State {
            target,
            damage: None,
            generation: 0,
            copies: None,
        });
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, watched.clone()));
            }
        });
        Proxy {
            address,
            state,
            accepting,
        }
    }

    /// Damages the link.
    pub fn damage(&self, damage: Damage) {
        self.state.send_modify(|state| {
            if matches!(damage, Damage::Cut | Damage::Reset) {
                state.generation += 1;
            }
            state.damage = (damage != Damage::Reset).then_some(damage);
        });
    }

    /// Mends it. What was held back goes on its way.
    pub fn mend(&self) {
        self.state.send_modify(|state| state.damage = None);
    }

    /// Where it leads.
    pub fn target(&self) -> SocketAddr {
        self.state.borrow().target
    }

    /// It leads elsewhere from now on; connections to where it led are closed.
    pub fn aim(&self, target: SocketAddr) {
        self.state.send_modify(|state| {
            state.target = target;
            state.generation += 1;
        });
    }

    /// From now on, what each client sends in a connection of its own is also told here, when the connection has ended.
    pub fn copy_requests(&self) -> mpsc::UnboundedReceiver<Vec<u8>> {
        let (copies, received) = mpsc::unbounded_channel();
        self.state.send_modify(|state| state.copies = Some(copies));
        received
    }

    /// No longer.
    pub fn copy_no_more(&self) {
        self.state.send_modify(|state| state.copies = None);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(client: TcpStream, mut state: watch::Receiver<State>) {
    let born = state.borrow_and_update().clone();
    // What waits to be read when a socket is closed makes the close a reset, which is what a cut and a reset should look like.
    if born.damage == Some(Damage::Cut) {
        return;
    }
    let Ok(server) = TcpStream::connect(born.target).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (mut sent, mut answered) = (Vec::new(), Vec::new());
    let to_copy = if born.copies.is_some() {
        LARGEST_COPY
    } else {
        0
    };
    let up = pipe(from_client, to_server, state.clone(), &mut sent, to_copy);
    let down = pipe(from_server, to_client, state.clone(), &mut answered, 0);
    // The halves and what they hold back are dropped together, in the middle of whatever they do.
    tokio::select! {
        ((), ()) = async { tokio::join!(up, down) } => {}
        _ = state.wait_for(|now| now.generation != born.generation) => {}
    }
    if let Some(copies) = born.copies {
        // Nobody may be listening any more.
        let _ = copies.send(sent);
    }
}

/// Carries one direction until its source ends, and keeps a copy of the first bytes.
async fn pipe(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    copy: &mut Vec<u8>,
    to_copy: usize,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(read) if read > 0 => read,
            _ => break,
        };
        let room = to_copy.saturating_sub(copy.len());
        copy.extend_from_slice(&buffer[..read.min(room)]);
        let is_delayed = match state.borrow().damage {
            Some(Damage::Delay(ms)) => Some(Duration::from_millis(ms)),
            _ => None,
        };
        if let Some(delay) = is_delayed {
            sleep(delay).await;
        }
        let passes = |now: &State| now.damage != Some(Damage::Stall);
        if state.wait_for(passes).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const SOON: Duration = Duration::from_millis(150);

    /// A server that sends back what it gets, and a proxy before it.
    async fn echo() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        Proxy::start(address).await
    }

    async fn say(stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(b"x").await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.map(drop)
    }

    #[tokio::test]
    async fn a_cut_link_closes_its_connections_and_refuses_new_ones_until_it_is_mended() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        say(&mut stream).await.unwrap();
        proxy.damage(Damage::Cut);
        assert!(say(&mut stream).await.is_err());
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        assert!(say(&mut stream).await.is_err());
        proxy.mend();
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        say(&mut stream).await.unwrap();
    }

    #[tokio::test]
    async fn a_reset_link_loses_its_connections_and_takes_new_ones() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        say(&mut stream).await.unwrap();
        proxy.damage(Damage::Reset);
        assert!(say(&mut stream).await.is_err());
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        say(&mut stream).await.unwrap();
    }

    #[tokio::test]
    async fn a_stalled_link_holds_everything_back_and_delivers_it_late() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        say(&mut stream).await.unwrap();
        proxy.damage(Damage::Stall);
        assert!(timeout(SOON, say(&mut stream)).await.is_err());
        proxy.mend();
        let mut byte = [0];
        timeout(SOON * 20, stream.read_exact(&mut byte))
            .await
            .expect("what was held back arrives")
            .unwrap();
    }

    #[tokio::test]
    async fn a_delayed_link_takes_its_time_both_ways() {
        let proxy = echo().await;
        proxy.damage(Damage::Delay(60));
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let start = Instant::now();
        say(&mut stream).await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(120));
    }

    #[tokio::test]
    async fn a_link_that_is_aimed_elsewhere_loses_its_connections_and_leads_there() {
        let (proxy, other) = (
            echo().await,
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        say(&mut stream).await.unwrap();
        proxy.aim(other.local_addr().unwrap());
        assert!(say(&mut stream).await.is_err());
        let _stream = TcpStream::connect(proxy.address).await.unwrap();
        timeout(SOON * 20, other.accept())
            .await
            .expect("it leads there")
            .unwrap();
    }

    #[tokio::test]
    async fn what_was_sent_is_copied_while_somebody_wants_it_and_arrives_all_the_same() {
        let proxy = echo().await;
        let mut copies = proxy.copy_requests();
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        say(&mut stream).await.unwrap();
        drop(stream);
        let copy = timeout(SOON * 20, copies.recv()).await.unwrap();
        assert_eq!(copy, Some(b"x".to_vec()));
        proxy.copy_no_more();
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        say(&mut stream).await.unwrap();
        drop(stream);
        assert_eq!(copies.recv().await, None);
    }
}
