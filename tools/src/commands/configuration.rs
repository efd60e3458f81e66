//! `sledge config`.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::client::{Client, Failure};
use crate::output::Report;

pub(super) fn save(client: &mut Client, file: Option<PathBuf>) -> Result<Report, Failure> {
    let config = client.ask("save_config")?;
    let text = format!("{config:#}");
    let Some(file) = file else { return Ok(Report::say(config, text)) };
    write_whole(&file, &text)
        .map_err(|error| Failure::Usage(format!("can't write {}: {error}", file.display())))?;
    Ok(Report::say(config, format!("saved to {}; `sledge-target -c {0}` starts with it", file.display())))
}

/// Writes beside the file and renames, so that a crash, or a full disk, leaves the old file or the new one. What was there
/// keeps its permissions, and a link leads to the same place; a new file is its owner's only.
fn write_whole(file: &Path, text: &str) -> std::io::Result<()> {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let mut new = file.as_os_str().to_owned();
    // Of this process alone: two that save at once do not write into each other's.
    new.push(format!(".new.{}", std::process::id()));
    let written =
        File::options().write(true).create_new(true).mode(0o600).open(&new).and_then(|mut output| {
            if let Ok(old) = fs::metadata(&file) {
                output.set_permissions(old.permissions())?;
            }
            output.write_all(text.as_bytes())?;
            output.write_all(b"\n")?;
            output.sync_all()
        });
    written.and_then(|()| fs::rename(&new, &file)).inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

pub(super) fn load(client: &mut Client, file: &Path) -> Result<Report, Failure> {
    let unreadable = |error| Failure::Usage(format!("can't read {}: {error}", file.display()));
    let text = fs::read_to_string(file).map_err(unreadable)?;
    // The target reads it as it reads its own, and says the line of what is wrong.
    let result = client.call("load_config", json!({"file": file.display().to_string(), "text": text}))?;
    Ok(Report::say(result, format!("loaded {}", file.display())))
}
