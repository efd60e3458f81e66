//! Any sequence of changes: what fails changes nothing, and what results is saved as a configuration that loads to
//! the same.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use sledge_target::config::load;
use sledge_target::methods;
use sledge_target::model::{Claims, Environment, Finished, Model, save};

type Call = (&'static str, Value);

/// Without the members that are null: those that are not given.
fn given(mut value: Value) -> Value {
    if let Value::Object(members) = &mut value {
        members.retain(|_, value| !value.is_null());
        for value in members.values_mut() {
            *value = given(value.take());
        }
    }
    value
}

fn call(name: &'static str, params: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Call> {
    params.prop_map(move |params| (name, given(params))).boxed()
}

fn device() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "b", "c", "EE_a", "EE_b"])
}

fn block() -> impl Strategy<Value = u32> {
    select(vec![512, 4096])
}

fn uuid() -> impl Strategy<Value = Option<&'static str>> {
    of(select(vec!["6f1d2a34-58c1-4a8b-9d11-3c2f00000001", "6f1d2a34-58c1-4a8b-9d11-3c2f00000002"]))
}

fn nqn() -> impl Strategy<Value = &'static str> {
    select(vec!["nqn.2026-01.io.sledge:a", "nqn.2026-01.io.sledge:b", "nqn.2026-01.io.sledge:c"])
}

fn subsystem_or_discovery() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => nqn(), 1 => Just("nqn.2014-08.org.nvmexpress.discovery")]
}

fn address() -> impl Strategy<Value = Value> {
    let ip = select(vec!["127.0.0.1", "0.0.0.0", "::1"]);
    (ip, 1u16..4).prop_map(|(ip, port)| json!({"traddr": ip, "trsvcid": port.to_string()}))
}

fn state() -> impl Strategy<Value = Option<&'static str>> {
    of(select(vec!["optimized", "non_optimized", "inaccessible"]))
}

fn named(name: &'static str) -> BoxedStrategy<Call> {
    call(name, device().prop_map(|name| json!({"name": name})))
}

fn devices(folder: String) -> impl Strategy<Value = Call> {
    let shape = || (device(), 1u64..5, block(), uuid());
    prop_oneof![
        call("bdev_malloc_create", (of(device()), 1u64..5, block(), uuid(), 0u32..3).prop_map(
            |(name, blocks, size, uuid, boundary)| json!({"name": name, "num_blocks": blocks,
                "block_size": size, "uuid": uuid, "optimal_io_boundary": boundary})
        )),
        call("bdev_null_create", shape().prop_map(
            |(name, blocks, size, uuid)| json!({"name": name, "num_blocks": blocks, "block_size": size,
                "uuid": uuid})
        )),
        call("bdev_uring_create", shape().prop_map(
            move |(name, file, size, uuid)| json!({"name": name, "filename": format!("{folder}/{file}"),
                "block_size": size, "uuid": uuid, "create_bytes": 8192})
        )),
        call("bdev_delay_create", (device(), device(), uuid(), 0u64..9).prop_map(
            |(name, base, uuid, time)| json!({"name": name, "base_bdev_name": base, "uuid": uuid,
                "avg_read_latency": time, "p99_read_latency": time + 1, "avg_write_latency": time + 2,
                "p99_write_latency": time + 3})
        )),
        call("bdev_delay_update_latency", (device(), select(vec!["avg_read", "p99_write"]), 0u64..99).prop_map(
            |(name, kind, time)| json!({"delay_bdev_name": name, "latency_type": kind, "latency_us": time})
        )),
        call("bdev_error_create", (select(vec!["a", "b"]), uuid()).prop_map(
            |(base, uuid)| json!({"base_name": base, "uuid": uuid})
        )),
        call("bdev_null_resize", (device(), 1u64..4).prop_map(
            |(name, size)| json!({"name": name, "new_size": size})
        )),
        named("bdev_uring_rescan"),
        named("bdev_malloc_delete"),
        named("bdev_null_delete"),
        named("bdev_uring_delete"),
        named("bdev_delay_delete"),
        named("bdev_error_delete"),
        call("bdev_nvme_set_options", (0u64..9).prop_map(|count| json!({"bdev_retry_count": count}))),
        call("bdev_nvme_set_hotplug", any::<bool>().prop_map(|on| json!({"enable": on, "period_us": 200_000}))),
    ]
}

fn served() -> impl Strategy<Value = Call> {
    let text = || of(select(vec!["A", "with space"]));
    let identifier = |digits: usize| of(select(vec!["1".repeat(digits), "A".repeat(digits)]));
    prop_oneof![
        call("nvmf_create_transport", (2u16..64, of(select(vec![0u32, 4096, 8192])), any::<bool>()).prop_map(
            |(depth, inline, success)| json!({"trtype": "tcp", "max_queue_depth": depth,
                "in_capsule_data_size": inline, "c2h_success": success, "sock_priority": 1})
        )),
        call("nvmf_set_max_subsystems", (0u32..5).prop_map(|most| json!({"max_subsystems": most}))),
        call("nvmf_create_subsystem",
            (nqn(), text(), text(), any::<bool>(), of(0u32..4), any::<bool>(), of(0u16..4), of(2u16..9)).prop_map(
                |(nqn, serial, model, any, most, ana, least_id, most_id)| json!({"nqn": nqn,
                    "serial_number": serial, "model_number": model, "allow_any_host": any,
                    "max_namespaces": most, "ana_reporting": ana, "min_cntlid": least_id, "max_cntlid": most_id})
        )),
        call("nvmf_delete_subsystem", nqn().prop_map(|nqn| json!({"nqn": nqn}))),
        call("nvmf_subsystem_add_ns",
            (nqn(), device(), of(0u32..4), identifier(32), identifier(16), uuid(), of(0u32..4)).prop_map(
                |(nqn, name, nsid, nguid, eui64, uuid, group)| json!({"nqn": nqn, "namespace": {
                    "bdev_name": name, "nsid": nsid, "nguid": nguid, "eui64": eui64, "uuid": uuid,
                    "anagrpid": group}})
        )),
        call("nvmf_subsystem_remove_ns", (nqn(), 1u32..4).prop_map(|(nqn, nsid)| json!({"nqn": nqn, "nsid": nsid}))),
        call("nvmf_subsystem_add_host", (nqn(), nqn()).prop_map(|(nqn, host)| json!({"nqn": nqn, "host": host}))),
        call("nvmf_subsystem_remove_host", (nqn(), nqn()).prop_map(
            |(nqn, host)| json!({"nqn": nqn, "host": host})
        )),
        call("nvmf_subsystem_allow_any_host", (nqn(), any::<bool>()).prop_map(
            |(nqn, any)| json!({"nqn": nqn, "allow_any_host": any})
        )),
        call("nvmf_subsystem_add_listener", (subsystem_or_discovery(), address(), state()).prop_map(
            |(nqn, address, state)| json!({"nqn": nqn, "listen_address": address, "ana_state": state})
        )),
        call("nvmf_subsystem_remove_listener", (subsystem_or_discovery(), address()).prop_map(
            |(nqn, address)| json!({"nqn": nqn, "listen_address": address})
        )),
        call("nvmf_subsystem_listener_set_ana_state", (nqn(), address(), state(), of(0u32..5)).prop_map(
            |(nqn, address, state, group)| json!({"nqn": nqn, "listen_address": address,
                "ana_state": state.unwrap_or("inaccessible"), "anagrpid": group})
        )),
        call("nvmf_discovery_add_referral", (address(), of(nqn())).prop_map(
            |(address, nqn)| json!({"address": address, "subnqn": nqn})
        )),
        call("nvmf_discovery_remove_referral", (address(), of(nqn())).prop_map(
            |(address, nqn)| json!({"address": address, "subnqn": nqn})
        )),
    ]
}

/// What a client can see.
fn seen(model: &Model) -> Value {
    let devices = model.devices.list();
    let devices = devices.iter().map(|device| {
        let geometry = device.geometry();
        json!([device.name(), device.uuid(), geometry.blocks, model.devices.claimed_by(device.name())])
    });
    json!([save::config(model), devices.collect::<Vec<_>>()])
}

fn files(folder: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

fn check(folder: &Path, calls: Vec<Call>) {
    let mut model = Model::new(Environment::new(1));
    let mut claims = Claims::default();
    let mut made = 0;
    for (method, params) in calls {
        let (before, files_before) = (seen(&model), files(folder));
        let mut draft = model.draft(claims.clone());
        match methods::run_edit(&mut draft, method, params.clone(), true) {
            Ok(_) => {
                let finished: Finished = draft.finish();
                (model, claims) = (finished.model, finished.claims);
                finished.effects.into_iter().for_each(|effect| effect());
                made += 1;
            }
            Err(_) => {
                drop(draft);
                assert_eq!(seen(&model), before, "{method} {params} failed and changed something");
                assert_eq!(
                    files(folder),
                    files_before,
                    "{method} {params} failed and left a file, or took one"
                );
            }
        }
    }
    let saved = save::config(&model);
    let before = seen(&model);
    drop((model, claims));

    let loaded = Model::new(Environment::new(1));
    let entries = load::entries(&saved).unwrap();
    let mut draft = loaded.draft(Claims::default());
    load::edit(&mut draft, &entries)
        .unwrap_or_else(|fault| panic!("{}: {fault:?} in {saved:#}", fault.place()));
    let finished = draft.finish();
    assert_eq!(seen(&finished.model), before, "after {made} changes");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    // Without it: a change that fails could leave part of itself, or a restart with the saved configuration serve
    // something else than before, for a combination that nobody thought of.
    #[test]
    fn changes_are_whole_and_saved(calls in vec(prop_oneof![devices("FOLDER".into()), served()], 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let place = |(method, params): Call| {
            (method, serde_json::from_str(&params.to_string().replace("FOLDER", path)).unwrap())
        };
        check(folder.path(), calls.into_iter().map(place).collect());
    }
}
