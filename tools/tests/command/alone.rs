//! The command without a target, with one that does not answer, and with a reader who has gone.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Target, failure, sledge};

// Without it: a person without a running target would get an error that does not help, or none.
#[test]
fn without_a_target_it_says_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let said = failure(sledge(folder.path()).arg("status").output().unwrap());
    assert_eq!(
        said,
        "no target is listening on sledge-data/sledge.sock or /run/sledge/sledge.sock; start one with \
         `sledge-target`, or name its socket with --socket"
    );
    let named =
        failure(sledge(folder.path()).args(["--socket", "x.sock", "device", "list"]).output().unwrap());
    assert!(named.starts_with("no target is listening on x.sock; "), "{named}");
    // A socket that a killed target left is no target. One that never listened: a child that another test has just
    // forked may have it open for a moment.
    drop(UnixDatagram::bind(folder.path().join("dead.sock")).unwrap());
    let dead = failure(sledge(folder.path()).args(["--socket", "dead.sock", "status"]).output().unwrap());
    assert!(dead.starts_with("no target is listening on dead.sock; "), "{dead}");
    let help = sledge(folder.path()).output().unwrap();
    assert_eq!(help.status.code(), Some(2));
    assert!(String::from_utf8(help.stderr).unwrap().contains("Usage: sledge"));
}

// Without it: a target that ends in the middle of a call would look like a success, or hang the command.
#[test]
fn a_target_that_does_not_answer_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("mute.sock")).unwrap();
    let mute = std::thread::spawn(move || {
        for answer in [&b""[..], b"{\"jsonrpc\": \"2.0\", \"id\"", b"nonsense\n"] {
            let (mut stream, _) = listener.accept().unwrap();
            let length = stream.read(&mut [0; 4096]).unwrap();
            assert!(length > 0);
            stream.write_all(answer).unwrap();
        }
    });
    for reason in ["it closed the connection", "it closed the connection", "expected"] {
        let asked = sledge(folder.path()).args(["--socket", "mute.sock", "status"]).output().unwrap();
        let said = failure(asked);
        assert!(said.starts_with("the target on mute.sock does not answer: "), "{said}");
        assert!(said.contains(reason) && said.ends_with("see its log"), "{said}");
    }
    mute.join().unwrap();
}

// Without it: a person whose target is older than the command, or who may not use it, would not learn what to do.
#[test]
fn a_target_that_can_not_be_used_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("old.sock")).unwrap();
    let old = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        let answer = br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"Method not found"}}"#;
        stream.write_all(answer).unwrap();
    });
    let asked = sledge(folder.path()).args(["--socket", "old.sock", "device", "stats"]).output().unwrap();
    let said = failure(asked);
    assert!(said.starts_with("the target on old.sock does not know bdev_get_iostat, "), "{said}");
    assert!(said.contains("another version") && said.contains("restart the target"), "{said}");
    old.join().unwrap();

    // Only root can become somebody who is not allowed, and nobody must be able to run the command.
    let target = Target::start();
    let socket = target.folder.path().join("sledge-data/sledge.sock");
    let mut asked = sledge(Path::new("/"));
    asked.uid(65_534).args(["status", "--socket"]).arg(&socket);
    match asked.output() {
        Ok(output) => {
            let said = failure(output);
            assert!(said.starts_with("not allowed to use ") && said.contains("sudo"), "{said}");
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied),
    }
}

// Without it: a configuration that is too long would look like a target that has crashed.
#[test]
fn a_request_that_is_too_long_is_explained() {
    let target = Target::start();
    let long = format!("{{\"subsystems\": [\"{}\"]}}", "x".repeat(5 << 20));
    std::fs::write(target.folder.path().join("long.json"), long).unwrap();
    let said = target.refuses(&["config", "load", "long.json"]);
    assert!(said.contains("request longer than "), "{said}");
}

// Without it: `sledge … | head` would end with a panic or an error.
#[test]
fn a_reader_who_has_gone_is_no_error() {
    let target = Target::start();
    for arguments in [&["rpc", "rpc_get_methods"][..], &["--json", "reactor", "list"], &["completion", "zsh"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = sledge(target.folder.path())
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
    // What can't be written for another reason is one.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output =
        sledge(target.folder.path()).arg("status").stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert!(failure(output).starts_with("can't print: "));
}

// Without it: a person would have to name the socket each time, or a named one would be passed over.
#[test]
fn the_socket_is_found_or_named() {
    let target = Target::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let socket = target.folder.path().join("sledge-data/sledge.sock");
    let shown = socket.to_str().unwrap();
    let by_environment =
        sledge(elsewhere.path()).arg("status").env("SLEDGE_SOCKET", &socket).output().unwrap();
    assert!(String::from_utf8(by_environment.stdout).unwrap().contains(shown));
    let by_name = sledge(elsewhere.path()).args(["status", "--socket", shown]).output().unwrap();
    assert!(by_name.status.success());
    std::os::unix::fs::symlink(&socket, elsewhere.path().join("sledge.sock")).unwrap();
    let of_this_user =
        sledge(elsewhere.path()).arg("status").env("XDG_RUNTIME_DIR", elsewhere.path()).output().unwrap();
    assert!(of_this_user.status.success());
}

// Without it: a shell could refuse the completions that it is given, or complete another command.
#[test]
fn completions_are_for_the_shell_that_asks() {
    let folder = tempfile::tempdir().unwrap();
    let script = |shell: &str| {
        let output = sledge(folder.path()).args(["completion", shell]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for (shell, start) in
        [("bash", "complete -F _sledge "), ("zsh", "#compdef sledge"), ("fish", "complete -c sledge ")]
    {
        let script = script(shell);
        assert!(script.contains(start), "{shell}");
        for word in ["subsystem", "allow-host", "rescan", "malloc", "max-namespaces"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    // A shell that is there reads its own.
    for shell in ["bash", "zsh", "fish"] {
        let path = folder.path().join(shell);
        std::fs::write(&path, script(shell)).unwrap();
        match Command::new(shell).arg("-n").arg(&path).output() {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
    }
    // bash completes with it, as it does when a person presses the key.
    let press = "set -e; source ./bash; complete -p sledge >&2; \
        completed() { COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); \
            _sledge sledge \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; \
            echo \"${COMPREPLY[@]}\"; }; \
        completed sledge dev; completed sledge device cr; completed sledge device stats --by; \
        completed sledge device create ma";
    match Command::new("bash").args(["--norc", "-c", press]).current_dir(folder.path()).output() {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            let completed = String::from_utf8(output.stdout).unwrap();
            assert_eq!(completed, "device devices\ncreate\n--by-reactor\nmalloc\n");
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
    }
    let unknown = sledge(folder.path()).args(["completion", "tcsh"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}
