//! A reference model of a sale: one thread, virtual time, every rule of the real thing, and a switch that takes one rule out.
//!
//! Clients invoke, the model takes effect at a random instant later, and the answer arrives later still, or never. A crash cuts
//! what is under way: each such request has taken effect or not, and nobody is told.

mod books;
mod choice;
mod flaw;
mod server;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use loadtest::history::event::{Done, Invoke};
use loadtest::history::{Action, Event};
use loadtest::ledger::OrderStatus;

use super::tale::{SALE, T0_MS};

pub use flaw::Flaw;

/// splitmix64: a seed repeats a run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

const SKUS: [&str; 2] = ["a", "b"];
const STARTS_MS: u64 = 30;
const PAY_WITHIN_MS: u64 = 200;
/// The longest the model's sweep lets an unpaid order wait, and so the least that must be allowed.
pub const SWEEP_MS: u64 = 20;
const CLIENTS: usize = 6;
const STEPS: usize = 280;
const LIMIT: u64 = 3;

#[derive(Clone, Debug)]
struct Order {
    name: String,
    buyer: String,
    request: String,
    sku: usize,
    units: u64,
    /// Everything its request bought: a cart is an order a line.
    content: Vec<(usize, u64)>,
    status: OrderStatus,
    created_ms: u64,
    /// Reached the ledger.
    is_recorded: bool,
    made_us: u64,
    intents: u64,
}

/// A request a client has sent, to be sent again.
#[derive(Clone)]
struct Sent {
    invoke: Invoke,
    orders: Vec<String>,
}

struct Client {
    sent: Vec<Sent>,
    steps: usize,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    invoke: Invoke,
    done: Option<(Answer, Done)>,
    is_cut: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Ok,
    Fail,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Act(usize),
    Effect(usize),
    Answer(usize),
    Sweep,
    Crash,
}

/// The model and its clients.
pub struct Model {
    random: Random,
    flaw: Option<Flaw>,
    now_us: u64,
    turns: BinaryHeap<Reverse<(u64, u64, Turn)>>,
    turn: u64,
    clients: Vec<Client>,
    events: Vec<Event>,
    ops: u64,
    stock: [u64; 2],
    restocked: [u64; 2],
    restocks: Vec<String>,
    free: [i64; 2],
    flag: [bool; 2],
    held: HashMap<(String, usize), i64>,
    requests: HashMap<(String, String, usize), usize>,
    tokens: HashMap<String, usize>,
    orders: Vec<Order>,
    is_paused: bool,
}

/// A whole history of the model; a flaw takes one of its rules out.
pub fn history(seed: u64, flaw: Option<Flaw>) -> Vec<Event> {
    let mut random = Random(seed);
    // One sku with a small stock, for the last unit and the limit; one with a large stock, for long lives of many orders.
    let stocks = [1, 2, LIMIT - 1, LIMIT, LIMIT + 1, 6];
    let stock = [stocks[random.below(6) as usize], 30 + random.below(60)];
    let clients = (0..CLIENTS).map(|_| Client {
        sent: Vec::new(),
        steps: STEPS,
        under_way: None,
    });
    let mut model = Model {
        flaw,
        now_us: 0,
        turns: BinaryHeap::new(),
        turn: 0,
        clients: clients.collect(),
        events: Vec::new(),
        ops: 0,
        stock,
        restocked: [0; 2],
        restocks: Vec::new(),
        free: stock.map(|units| units as i64),
        flag: [false; 2],
        held: HashMap::new(),
        requests: HashMap::new(),
        tokens: HashMap::new(),
        orders: Vec::new(),
        is_paused: false,
        random,
    };
    model.run();
    model.drain();
    model.books();
    model.events
}

impl Model {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn later(&mut self, after_us: u64, turn: Turn) {
        self.turn += 1;
        self.turns
            .push(Reverse((self.now_us + after_us, self.turn, turn)));
    }

    fn now_ms(&self) -> u64 {
        T0_MS + self.now_us / 1000
    }

    fn run(&mut self) {
        for client in 0..CLIENTS {
            self.later(0, Turn::Act(client));
        }
        self.later(1_000, Turn::Sweep);
        for _ in 0..6 {
            let at = 100_000 + self.random.below(1_500_000);
            self.later(at, Turn::Crash);
        }
        while let Some(Reverse((at, _, turn))) = self.turns.pop() {
            self.now_us = at;
            match turn {
                Turn::Act(client) => self.act(client),
                Turn::Effect(client) => self.effect(client),
                Turn::Answer(client) => self.answer(client),
                Turn::Sweep => {
                    self.sweep();
                    if self.clients.iter().any(|client| client.steps > 0) {
                        self.later(2_500, Turn::Sweep);
                    }
                }
                Turn::Crash => self.crash(),
            }
        }
    }

    fn act(&mut self, client: usize) {
        if self.clients[client].steps == 0 {
            return;
        }
        self.clients[client].steps -= 1;
        let invoke = self.choose(client);
        self.invoke(client, invoke);
        let effect = 50 + self.random.below(6_000);
        self.later(effect, Turn::Effect(client));
    }

    fn invoke(&mut self, client: usize, invoke: Invoke) {
        self.ops += 1;
        let invoke = Invoke {
            t_us: self.now_us,
            wall_ms: self.now_ms(),
            op: self.ops,
            client: client as u32,
            ..invoke
        };
        self.events.push(Event::Invoke(invoke.clone()));
        self.clients[client].under_way = Some(UnderWay {
            invoke,
            done: None,
            is_cut: false,
        });
    }

    fn effect(&mut self, client: usize) {
        let Some(under_way) = &self.clients[client].under_way else {
            return;
        };
        // A crash before the effect drops the request, half the time.
        let is_operator = matches!(under_way.invoke.f, Action::Pause | Action::Resume);
        if is_operator || !(under_way.is_cut && self.random.percent(50)) {
            let invoke = under_way.invoke.clone();
            let done = self.decide(&invoke);
            if let Some(under_way) = &mut self.clients[client].under_way {
                under_way.done = Some(done);
            }
        }
        let after = 50 + self.random.below(6_000);
        self.later(after, Turn::Answer(client));
    }

    fn answer(&mut self, client: usize) {
        let Some(UnderWay {
            invoke,
            done,
            is_cut,
        }) = self.clients[client].under_way.take()
        else {
            return;
        };
        // An operator who was not told what became of a pause may find the sale open again at any time later: one such line
        // excuses every sale behind the gate, so operators lose fewer answers than buyers.
        let is_operator = matches!(invoke.f, Action::Pause | Action::Resume);
        let is_silent = !is_operator && (is_cut || self.random.percent(4));
        let (answer, done) = done.unwrap_or((Answer::Fail, Done::default()));
        let done = Done {
            t_us: self.now_us,
            wall_ms: self.now_ms(),
            op: invoke.op,
            ..done
        };
        let mut told: Vec<String> = done.orders.iter().map(|one| one.order.clone()).collect();
        told.extend(Some(done.order.clone()).filter(|order| !order.is_empty()));
        self.events.push(match (is_silent, answer) {
            (true, _) => Event::Info(Done {
                t_us: done.t_us,
                wall_ms: done.wall_ms,
                op: done.op,
                code: "timeout".into(),
                ..Done::default()
            }),
            (false, Answer::Ok) => Event::Ok(done),
            (false, Answer::Fail) => Event::Fail(done),
        });
        if !is_silent && answer == Answer::Ok && !told.is_empty() {
            let sent = self.clients[client].sent.iter_mut();
            for sent in sent.filter(|sent| sent.invoke.request == invoke.request) {
                sent.orders.clone_from(&told);
            }
        }
        let pause = self.random.below(9_000);
        self.later(pause, Turn::Act(client));
    }

    /// After the faults: unknowns are asked for, and new buyers come until nothing is left.
    fn drain(&mut self) {
        self.now_us += 20_000;
        self.sweep();
        self.events.push(Event::Quiet { t_us: self.now_us });
        let resume = Invoke::new(Action::Resume, SALE);
        self.at_once(resume);
        let asked: Vec<Invoke> = self
            .clients
            .iter()
            .flat_map(|c| &c.sent)
            .map(|s| s.invoke.clone())
            .collect();
        for invoke in asked {
            self.at_once(Invoke {
                f: choice::asking(&invoke),
                token: String::new(),
                ..invoke
            });
        }
        for sku in SKUS {
            for number in 0..400 {
                let done = self.at_once(Invoke {
                    buyer: format!("late-{sku}-{number}"),
                    request: "r".into(),
                    lines: vec![(sku.into(), 1)],
                    ..Invoke::new(Action::Buy, SALE)
                });
                if done == "sold_out" {
                    break;
                }
            }
        }
    }

    fn at_once(&mut self, invoke: Invoke) -> String {
        self.now_us += 1;
        self.invoke(0, invoke.clone());
        self.now_us += 1;
        let (answer, done) = self.decide(&invoke);
        self.now_us += 1;
        let done = Done {
            t_us: self.now_us,
            wall_ms: self.now_ms(),
            op: self.ops,
            ..done
        };
        self.clients[0].under_way = None;
        let code = done.code.clone();
        self.events.push(match answer {
            Answer::Ok => Event::Ok(done),
            Answer::Fail => Event::Fail(done),
        });
        code
    }
}
