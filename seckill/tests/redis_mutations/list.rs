//! The list of mutations, the only one: add a line for each rule that the library gets. One table, so it may grow past what a file
//! of code should have.

use super::{Mutation, Proof, proofs, rebuilds};
use seckill::store::conformance;

/// A case of the conformance suite.
macro_rules! case {
    ($name:ident) => {
        (
            concat!("conformance::", stringify!($name)),
            (|bed| Box::pin(async move { conformance::$name(&bed.subject).await })) as Proof,
        )
    };
}

/// One of `proofs.rs` or `rebuilds.rs`.
macro_rules! own {
    ($file:ident::$name:ident) => {
        (
            concat!(stringify!($file), "::", stringify!($name)),
            (|bed| Box::pin($file::$name(bed))) as Proof,
        )
    };
}

pub(super) const MUTATIONS: &[Mutation] = &[
    Mutation {
        rule: "buy: replay check",
        from: "    elseif known then\n",
        to: "    elseif false then\n",
        proof: case!(a_replay_answers_the_first_order_and_changes_nothing),
    },
    Mutation {
        rule: "buy: replay within a batch",
        from: "local holder = fresh.holders[buyer] or holders[i]",
        to: "local holder = holders[i]",
        proof: case!(the_same_request_twice_in_one_batch_is_one_order),
    },
    Mutation {
        rule: "buy: replay of a later order within a batch",
        from: "    id = fresh.requests[request] or redis.call",
        to: "    id = redis.call",
        proof: case!(later_orders_of_a_buyer_are_remembered_like_his_first),
    },
    Mutation {
        rule: "buy: later orders are remembered",
        from: "    redis.call('HSET', keys[REQUESTS], unpack(fresh.new_requests))\n",
        to: "",
        proof: case!(later_orders_of_a_buyer_are_remembered_like_his_first),
    },
    Mutation {
        rule: "buy: a first order stays the first",
        from: "  local holder = units .. ' ' .. (first or id)",
        to: "  local holder = units .. ' ' .. id",
        proof: case!(later_orders_of_a_buyer_are_remembered_like_his_first),
    },
    Mutation {
        rule: "buy: a first order answers its own request only",
        from: "  if record and string.sub(record, -#request - 1) ~= ' ' .. request then",
        to: "  if false then",
        proof: case!(later_orders_of_a_buyer_are_remembered_like_his_first),
    },
    Mutation {
        rule: "buy: requests are compared to their beginning",
        from: "  if record and string.sub(record, -#request - 1) ~= ' ' .. request then",
        to: "  if record and string.sub(record, -2) ~= string.sub(request, -2) then",
        proof: case!(later_orders_of_a_buyer_are_remembered_like_his_first),
    },
    Mutation {
        rule: "buy: an order that is gone",
        from: "  if not record then\n    return nil, nil, corrupt(",
        to: "  if not record then\n    return nil, nil, nil, (",
        proof: own!(proofs::an_order_that_is_gone_is_not_bought_again),
    },
    Mutation {
        rule: "buy: units that cannot be read",
        from: "    return nil, nil, nil, nil, corrupt('the units of a buyer are unreadable')",
        to: "    return 0, nil, nil, nil, nil",
        proof: own!(proofs::a_buyer_whose_units_cannot_be_read_buys_nothing),
    },
    Mutation {
        rule: "buy: requests of a foreign type",
        from: "  redis.call('HLEN', keys[REQUESTS])\n",
        to: "",
        proof: own!(proofs::requests_of_a_foreign_type_stop_the_sale_before_a_write),
    },
    Mutation {
        rule: "buy: queue of a foreign type",
        from: "  redis.call('XLEN', keys[STREAM])\nend",
        to: "end",
        proof: own!(proofs::a_queue_of_a_foreign_type_stops_the_sale_before_a_write),
    },
    Mutation {
        rule: "buy: replays before refusals",
        from: "    elseif known then\n",
        to: "    elseif known and not refusal then\n",
        proof: case!(a_replay_is_answered_even_when_nobody_can_buy),
    },
    Mutation {
        rule: "buy: fingerprint check",
        from: "fingerprint == string.sub(content, 1, FINGERPRINT) and",
        to: "true and",
        proof: case!(a_request_id_with_other_content_is_a_conflict),
    },
    Mutation {
        rule: "buy: quantity check",
        from: "    if not quantity or quantity < 1 or quantity % 1 ~= 0 then\n      answers[i + 1]",
        to: "    if false then\n      answers[i + 1]",
        proof: case!(a_quantity_of_zero_or_far_too_much_changes_nothing),
    },
    Mutation {
        rule: "buy: epoch check",
        from: "elseif epoch ~= meta.epoch then",
        to: "elseif false then",
        proof: case!(an_old_epoch_buys_nothing),
    },
    Mutation {
        rule: "buy: operator's freeze",
        from: "elseif is_held(meta) or meta.gate == 'F' then",
        to: "elseif is_held(meta) then",
        proof: case!(a_frozen_segment_is_never_sold_out),
    },
    Mutation {
        rule: "buy: rebuild's freeze",
        from: "elseif is_held(meta) or meta.gate == 'F' then",
        to: "elseif meta.gate == 'F' then",
        proof: case!(a_frozen_segment_answers_replays_and_nothing_else),
    },
    Mutation {
        rule: "buy: frozen is not sold out",
        from: "elseif is_held(meta) or meta.gate == 'F' then\n    return 'F'",
        to: "elseif is_held(meta) or meta.gate == 'F' then\n    return 'O 0 1 1'",
        proof: case!(a_frozen_segment_is_never_sold_out),
    },
    Mutation {
        rule: "buy: closed gate",
        from: "elseif meta.gate == 'C' or now >= meta.ends then",
        to: "elseif now >= meta.ends then",
        proof: case!(a_closed_sale_has_ended),
    },
    Mutation {
        rule: "buy: end of the window",
        from: "elseif meta.gate == 'C' or now >= meta.ends then",
        to: "elseif meta.gate == 'C' then",
        proof: case!(after_the_window_nothing_is_sold),
    },
    Mutation {
        rule: "buy: start of the window",
        from: "elseif now < meta.starts then",
        to: "elseif false then",
        proof: case!(before_the_window_nothing_is_sold),
    },
    Mutation {
        rule: "buy: paused gate",
        from: "elseif meta.gate == 'P' then",
        to: "elseif false then",
        proof: case!(a_paused_sale_sells_nothing_until_it_is_resumed),
    },
    Mutation {
        rule: "buy: buyer limit",
        from: "  if holds + quantity > meta.limit then",
        to: "  if false then",
        proof: case!(the_buyer_limit_counts_live_units),
    },
    Mutation {
        rule: "buy: buyer limit within a batch",
        from: "local holder = fresh.holders[buyer] or holders[i]",
        to: "local holder = holders[i]",
        proof: case!(a_batch_is_answered_in_the_order_of_its_items),
    },
    Mutation {
        rule: "buy: stock check",
        from: "elseif meta.available < quantity then",
        to: "elseif false then",
        proof: case!(sold_out_tells_what_is_left),
    },
    Mutation {
        rule: "buy: limit before stock",
        from: "  if holds + quantity > meta.limit then",
        to: "  if meta.available >= quantity and holds + quantity > meta.limit then",
        proof: case!(a_quantity_of_zero_or_far_too_much_changes_nothing),
    },
    Mutation {
        rule: "buy: order id check",
        from: "elseif taken[i] or fresh.records[id] then",
        to: "elseif false then",
        proof: own!(proofs::an_order_id_is_given_once),
    },
    Mutation {
        rule: "buy: dirty marker",
        from: "    set_dirty(keys)\n    write_orders(keys, fresh)",
        to: "    write_orders(keys, fresh)",
        proof: own!(proofs::a_purchase_that_dies_half_way_stops_the_segment),
    },
    Mutation {
        rule: "buy: order on the queue",
        from: "    last = redis.call('XADD', keys[STREAM], '*', 'o', fresh.new_orders[i])\n",
        to: "",
        proof: case!(every_accepted_order_is_handed_out_once),
    },
    Mutation {
        rule: "buy: queue before requests",
        from: "local function write_orders(keys, fresh)\n  local last\n",
        to: "local function write_orders(keys, fresh)\n  local last\n  redis.call('HSET', keys[ORDERS], unpack(fresh.new_orders))\n  redis.call('HSET', keys[BUYERS], unpack(fresh.new_holders))\n  if redis.call('EXISTS', 'die') == 1 then error('half way') end\n",
        proof: own!(proofs::a_purchase_that_dies_half_way_stops_the_segment),
    },
    Mutation {
        rule: "buy: version",
        from: "  meta.version = meta.version + 1\nend",
        to: "end",
        proof: case!(the_version_grows_with_every_change),
    },
    Mutation {
        rule: "cart: replay check",
        from: "local replay = replay_of(lines, fingerprint)",
        to: "local replay = nil",
        proof: case!(a_cart_is_replayed_whole_and_its_request_is_never_reused),
    },
    Mutation {
        rule: "cart: fingerprint check",
        from: "      if first_fingerprint ~= fingerprint then",
        to: "      if false then",
        proof: case!(a_cart_is_replayed_whole_and_its_request_is_never_reused),
    },
    Mutation {
        rule: "cart: half a cart is a conflict",
        from: "    elseif not own.known then\n      return refused(known, 'K')",
        to: "    elseif not own.known then\n      return nil",
        proof: own!(proofs::a_line_bought_alone_with_the_same_content_blocks_its_cart),
    },
    Mutation {
        rule: "cart: all or nothing",
        from: "    local refusal = refusal_of(own.meta, own.epoch, now) or shortage_of(own.meta, own.holds, own.quantity)\n",
        to: "    local refusal = refusal_of(own.meta, own.epoch, now) or shortage_of(own.meta, own.holds, own.quantity)\n    if not refusal then\n      take(own.meta, own.quantity)\n      write_counters(own.keys, own.meta)\n    end\n",
        proof: case!(a_cart_with_one_refused_line_takes_nothing),
    },
    Mutation {
        rule: "cart: refusals of each line",
        from: "refusal_of(own.meta, own.epoch, now) or shortage_of",
        to: "shortage_of",
        proof: case!(a_cart_with_one_refused_line_takes_nothing),
    },
    Mutation {
        rule: "cart: limit and stock of each line",
        from: " or shortage_of(own.meta, own.holds, own.quantity)",
        to: "",
        proof: case!(a_cart_with_one_refused_line_takes_nothing),
    },
    Mutation {
        rule: "cart: keys of each line",
        from: "own[i] = keys[(line - 1) * KEYS_OF_SEGMENT + i]",
        to: "own[i] = keys[i]",
        proof: case!(a_cart_takes_all_its_lines),
    },
    Mutation {
        rule: "cart: dirty marker",
        from: "    set_dirty(own.keys)\n",
        to: "",
        proof: own!(proofs::a_cart_that_dies_half_way_stops_its_segments),
    },
    Mutation {
        rule: "cart: later carts of a buyer are remembered",
        from: "    write_orders(own.keys, own.fresh)\n",
        to: "    own.fresh.new_requests = {}\n    write_orders(own.keys, own.fresh)\n",
        proof: own!(proofs::later_carts_of_a_buyer_are_remembered_like_his_first),
    },
    Mutation {
        rule: "cart: a first cart stays the first",
        from: "int(own.holds + own.quantity), own.first, request)",
        to: "int(own.holds + own.quantity), nil, request)",
        proof: own!(proofs::later_carts_of_a_buyer_are_remembered_like_his_first),
    },
    Mutation {
        rule: "cart: orders are written",
        from: "    write_orders(own.keys, own.fresh)\n",
        to: "",
        proof: case!(a_cart_takes_all_its_lines),
    },
    Mutation {
        rule: "release: tombstone of a buyer's first order",
        from: "      redis.call('HSET', keys[BUYERS], buyer, int(units) .. ' ' .. firsts[buyer])\n",
        to: "      if units > 0 then\n        redis.call('HSET', keys[BUYERS], buyer, int(units) .. ' ' .. firsts[buyer])\n      else\n        redis.call('HDEL', keys[BUYERS], buyer)\n      end\n",
        proof: case!(a_released_request_stays_a_tombstone),
    },
    Mutation {
        rule: "release: tombstone of a later order",
        from: "        moved[id] = into .. string.sub(record, 2)\n",
        to: "        moved[id] = into .. string.sub(record, 2)\n        redis.call('HDEL', keys[REQUESTS], buyer .. ' ' .. string.match(record, '(%S+)$'))\n",
        proof: case!(a_released_request_stays_a_tombstone),
    },
    Mutation {
        rule: "release: gives the buyer's units back",
        from: "          held[buyer] = held[buyer] - quantity\n",
        to: "",
        proof: case!(the_buyer_limit_counts_live_units),
    },
    Mutation {
        rule: "release: once",
        from: "      elseif state ~= 'R' then",
        to: "      elseif state == 'S' then",
        proof: case!(released_units_are_sold_again_and_returned_once),
    },
    Mutation {
        rule: "release: never what is sold",
        from: "      elseif state ~= 'R' then",
        to: "      elseif state == 'X' then",
        proof: case!(release_after_confirm_is_refused),
    },
    Mutation {
        rule: "release: once within a call",
        from: "local record = moved[id] or records[i]",
        to: "local record = records[i]",
        proof: case!(the_same_order_twice_in_one_call_counts_once),
    },
    Mutation {
        rule: "release: dirty marker",
        from: "    set_dirty(keys)\n    redis.call('HSET', keys[ORDERS], unpack(writes))",
        to: "    redis.call('HSET', keys[ORDERS], unpack(writes))",
        proof: own!(proofs::a_release_that_dies_half_way_stops_the_segment),
    },
    Mutation {
        rule: "confirm: units become sold",
        from: "      meta.sold = meta.sold + units\n",
        to: "      meta.available = meta.available + units\n",
        proof: case!(release_after_confirm_is_refused),
    },
    Mutation {
        rule: "held segments refuse changes",
        from: "  if not fault and is_held(meta) then",
        to: "  if false then",
        proof: case!(a_frozen_segment_answers_replays_and_nothing_else),
    },
    Mutation {
        rule: "incarnation check",
        from: "(meta.state ~= 'W' or meta.server ~= this_server())",
        to: "meta.state ~= 'W'",
        proof: own!(proofs::a_segment_of_another_server_life_is_held),
    },
    Mutation {
        rule: "state check",
        from: "(meta.state ~= 'W' or meta.server ~= this_server())",
        to: "meta.server ~= this_server()",
        proof: case!(a_frozen_segment_answers_replays_and_nothing_else),
    },
    Mutation {
        rule: "counters add up",
        from: "  if meta.state == 'W' and meta.available + meta.reserved",
        to: "  if false and meta.available + meta.reserved",
        proof: own!(proofs::counters_that_do_not_add_up_sell_nothing),
    },
    Mutation {
        rule: "numbers are exact",
        from: "  return string.format('%.0f', number)",
        to: "  return tostring(number)",
        proof: own!(proofs::large_counts_are_exact),
    },
    Mutation {
        rule: "restock: the bound of 2^53",
        from: "    if units > EXACT - meta.stock - meta.restocked then\n      return redis.error_reply('TOOBIG stock and restocks would pass 2^53 units')\n    end\n    meta.available",
        to: "    meta.available",
        proof: own!(proofs::large_counts_are_exact),
    },
    Mutation {
        rule: "restock: once",
        from: "  if not redis.call('HGET', keys[MOVES], move) then",
        to: "  if true then",
        proof: case!(a_restock_adds_its_units_once),
    },
    Mutation {
        rule: "withdraw: once",
        from: "  if taken then\n    return taken\n  elseif",
        to: "  if false then\n    return taken\n  elseif",
        proof: case!(a_withdrawal_takes_what_there_is_once),
    },
    Mutation {
        rule: "withdraw: no more than there is",
        from: "math.min(tonumber(args[2]), meta.available)",
        to: "tonumber(args[2])",
        proof: case!(a_withdrawal_takes_what_there_is_once),
    },
    Mutation {
        rule: "withdraw: version",
        from: "  meta.withdrawn = meta.withdrawn + units\n  meta.version = meta.version + 1",
        to: "  meta.withdrawn = meta.withdrawn + units",
        proof: case!(withdrawn_units_are_not_sold),
    },
    Mutation {
        rule: "open: never resets",
        from: "  if not meta then\n    -- Orders without a meta",
        to: "  if true then\n    -- Orders without a meta",
        proof: case!(opening_again_never_resets_stock),
    },
    Mutation {
        rule: "open: rules change",
        from: "  elseif not is_held(meta) and meta.state == 'W' then\n    -- A held",
        to: "  elseif false then\n    -- A held",
        proof: case!(changed_rules_take_effect),
    },
    Mutation {
        rule: "open: lost meta",
        from: "keys[MOVES], keys[STREAM]) > 0 then",
        to: "keys[MOVES], keys[STREAM]) > 9 then",
        proof: own!(proofs::orders_without_their_meta_are_never_opened_anew),
    },
    Mutation {
        rule: "open: the queue from its beginning",
        from: "'CREATE', keys[STREAM], GROUP, '0', 'MKSTREAM'",
        to: "'CREATE', keys[STREAM], GROUP, '18446744073709551615-0', 'MKSTREAM'",
        proof: case!(every_accepted_order_is_handed_out_once),
    },
    Mutation {
        rule: "pull: takes over what is not acknowledged",
        from: "    for _, entry in ipairs(claim[2]) do\n      entries[#entries + 1] = entry\n    end\n",
        to: "",
        proof: case!(what_is_not_acknowledged_is_handed_out_again),
    },
    Mutation {
        rule: "pull: not too early",
        from: "GROUP, consumer, idle, cursor,",
        to: "GROUP, consumer, 0, cursor,",
        proof: case!(what_a_consumer_holds_is_not_handed_out_too_early),
    },
    Mutation {
        rule: "ack: takes off the queue",
        from: "int(redis.call('XACK', keys[STREAM], GROUP, unpack(args)))",
        to: "'0'",
        proof: case!(acknowledged_entries_never_come_back),
    },
    Mutation {
        rule: "unsettled: what is with consumers",
        from: "    local pending = redis.call('XPENDING', keys[STREAM], GROUP, '(' .. after, '+', max)\n",
        to: "    local pending = {}\n",
        proof: case!(what_was_never_settled_is_read_while_frozen),
    },
    Mutation {
        rule: "unsettled: not what is settled",
        from: "      from = group['last-delivered-id']\n",
        to: "",
        proof: own!(proofs::what_is_settled_is_not_read_again),
    },
    Mutation {
        rule: "forget: nothing that is reserved",
        from: "  if meta.reserved > 0 or now_ms()",
        to: "  if now_ms()",
        proof: own!(proofs::a_sale_with_reserved_units_keeps_its_orders),
    },
    Mutation {
        rule: "forget: not too early",
        from: " or now_ms() < meta.ends + meta.pay_within + KEPT_MS then",
        to: " then",
        proof: own!(proofs::only_a_settled_sale_forgets_its_orders_and_never_sells_again),
    },
    Mutation {
        rule: "forget: nothing that is on the queue",
        from: "  if redis.call('XPENDING', keys[STREAM], GROUP)[1] == 0 then",
        to: "  if true then",
        proof: own!(proofs::only_a_settled_sale_forgets_its_orders_and_never_sells_again),
    },
    Mutation {
        rule: "forget: in the end",
        from: "    redis.call('UNLINK', keys[BUYERS], keys[REQUESTS], keys[ORDERS], keys[STREAM])\n",
        to: "",
        proof: own!(proofs::only_a_settled_sale_forgets_its_orders_and_never_sells_again),
    },
    Mutation {
        rule: "forget: never sells again",
        from: "  if meta.state == 'G' then\n    return 'E'",
        to: "  if false then\n    return 'E'",
        proof: own!(proofs::only_a_settled_sale_forgets_its_orders_and_never_sells_again),
    },
    Mutation {
        rule: "forget: keeps its rules",
        from: "  elseif not is_held(meta) and meta.state == 'W' then\n    -- A held",
        to: "  elseif not is_held(meta) then\n    -- A held",
        proof: own!(proofs::only_a_settled_sale_forgets_its_orders_and_never_sells_again),
    },
    Mutation {
        rule: "open: a held segment keeps its rules",
        from: "  elseif not is_held(meta) and meta.state == 'W' then\n    -- A held",
        to: "  elseif true then\n    -- A held",
        proof: own!(proofs::a_segment_of_another_server_life_is_held),
    },
    Mutation {
        rule: "rebuild: older epochs",
        from: "  if epoch < current or epoch == current and state and not STOPPED[state] then",
        to: "  if epoch == current and state and not STOPPED[state] then",
        proof: case!(an_older_epoch_cannot_freeze_or_rebuild),
    },
    Mutation {
        rule: "rebuild: steps after its end",
        from: "  if epoch < current or epoch == current and state and not STOPPED[state] then",
        to: "  if epoch < current then",
        proof: own!(rebuilds::a_step_that_comes_after_the_end_of_its_rebuild_is_refused),
    },
    Mutation {
        rule: "rebuild: freeze first",
        from: "  elseif state and not STOPPED[state] then\n    return redis.error_reply('NOTFROZEN",
        to: "  elseif false then\n    return redis.error_reply('NOTFROZEN",
        proof: own!(rebuilds::a_segment_that_was_not_frozen_is_not_wiped),
    },
    Mutation {
        rule: "rebuild: begin before the end",
        from: "  elseif state ~= 'B' or epoch ~= current then",
        to: "  elseif epoch ~= current then",
        proof: own!(rebuilds::a_rebuild_cannot_end_before_it_has_begun),
    },
    Mutation {
        rule: "rebuild: on one server",
        from: "  if not fault and meta.server ~= this_server() then",
        to: "  if false then",
        proof: own!(rebuilds::a_rebuild_of_another_server_life_is_not_continued),
    },
    Mutation {
        rule: "rebuild: freeze stops the sale",
        from: "'epoch', epoch, 'state', 'F', 'version'",
        to: "'epoch', epoch, 'state', 'W', 'version'",
        proof: case!(a_frozen_segment_answers_replays_and_nothing_else),
    },
    Mutation {
        rule: "rebuild: old units and first orders are wiped",
        from: "'UNLINK', keys[BUYERS], keys[REQUESTS], keys[ORDERS], keys[MOVES], keys[STREAM])",
        to: "'UNLINK', keys[REQUESTS], keys[ORDERS], keys[MOVES], keys[STREAM])",
        proof: case!(a_rebuilt_segment_holds_what_the_ledger_said),
    },
    Mutation {
        rule: "rebuild: old requests are wiped",
        from: "'UNLINK', keys[BUYERS], keys[REQUESTS], keys[ORDERS], keys[MOVES], keys[STREAM])",
        to: "'UNLINK', keys[BUYERS], keys[ORDERS], keys[MOVES], keys[STREAM])",
        proof: case!(a_rebuilt_segment_knows_the_later_orders_of_a_buyer),
    },
    Mutation {
        rule: "rebuild: positions go on",
        from: "  if last then\n    redis.call('XSETID'",
        to: "  if false then\n    redis.call('XSETID'",
        proof: own!(rebuilds::positions_grow_over_a_rebuild),
    },
    Mutation {
        rule: "rebuild: versions go on",
        from: "math.max(version + 1, epoch * VERSIONS_OF_EPOCH)",
        to: "version + 1",
        proof: own!(rebuilds::versions_grow_over_a_rebuild_of_an_older_copy),
    },
    Mutation {
        rule: "rebuild: restocks are remembered",
        from: "    redis.call('HSET', keys[MOVES], unpack(writes))\n",
        to: "",
        proof: case!(a_rebuilt_segment_holds_what_the_ledger_said),
    },
    Mutation {
        rule: "rebuild: withdrawals fit",
        from: "    if sum > meta.available then",
        to: "    if false then",
        proof: own!(rebuilds::more_withdrawn_than_there_was_is_corrupt),
    },
    Mutation {
        rule: "load: orders fit",
        from: "        if meta.available < quantity then",
        to: "        if false then",
        proof: case!(a_rebuild_refuses_more_orders_than_there_are_units),
    },
    Mutation {
        rule: "load: once",
        from: "    if not known[i] and not fresh.records[id] then",
        to: "    if true then",
        proof: case!(a_rebuild_that_died_half_way_begins_anew),
    },
    Mutation {
        rule: "load: one order a request",
        from: "      elseif other then\n",
        to: "      elseif false then\n",
        proof: own!(rebuilds::two_orders_of_one_request_are_not_loaded),
    },
    Mutation {
        rule: "load: live units count for their buyer",
        from: "        holds = holds + quantity\n",
        to: "",
        proof: case!(a_rebuilt_segment_holds_what_the_ledger_said),
    },
    Mutation {
        rule: "load: returned orders hold no units",
        from: "      if state ~= 'X' then\n        if meta.available",
        to: "      if true then\n        if meta.available",
        proof: case!(a_rebuilt_segment_holds_what_the_ledger_said),
    },
    Mutation {
        rule: "load: handed out to nobody",
        from: "  redis.call('XGROUP', 'SETID', keys[STREAM], GROUP, last, 'ENTRIESREAD', meta.accepted)\n",
        to: "",
        proof: case!(a_rebuilt_segment_hands_out_no_settled_order_again),
    },
    Mutation {
        rule: "load: dirty marker",
        from: "  redis.call('HSET', keys[META], 'state', 'H')\n  local last = write_orders",
        to: "  local last = write_orders",
        proof: own!(rebuilds::a_load_that_dies_half_way_is_not_continued),
    },
];
