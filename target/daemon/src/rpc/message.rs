//! Requests and responses of JSON-RPC 2.0: one request or a batch of them in, one response, an array of
//! responses or nothing out. Pure but for the call itself, which is handed in.

use std::future::Future;

use serde_json::{Map, Value, json};

use super::error::RpcError;

/// The most requests of a batch.
pub const MAX_BATCH: usize = 4096;

/// Once the answers to a batch are longer, in bytes, the rest of it is refused: a short batch could have the target hold
/// answers of any length.
pub const MAX_BATCH_ANSWER_BYTES: usize = 16 << 20;

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Name of the method.
    pub method: String,
    /// Parameters by name; empty where the request has none.
    pub params: Value,
    /// Returned with the response; `None` in a notification, which gets no response.
    pub id: Option<Value>,
}

impl Request {
    /// Reads one request object (JSON-RPC 2.0, section 4).
    ///
    /// # Errors
    /// -32600 when it is not one, -32602 when its parameters are not an object; with the id, where it has one.
    pub fn from_value(value: Value) -> Result<Request, (Value, RpcError)> {
        let Value::Object(mut members) = value else {
            return Err((Value::Null, RpcError::invalid_request("not an object")));
        };
        let id = members.remove("id");
        let answer_to = match &id {
            Some(id @ (Value::String(_) | Value::Number(_) | Value::Null)) => id.clone(),
            Some(_) => {
                return Err((Value::Null, RpcError::invalid_request("id is not a string or a number")));
            }
            None => Value::Null,
        };
        let refuse = |reason: String| Err((answer_to.clone(), RpcError::invalid_request(reason)));
        match members.remove("jsonrpc") {
            Some(Value::String(version)) if version == "2.0" => {}
            _ => return refuse("jsonrpc is not \"2.0\"".into()),
        }
        let Some(Value::String(method)) = members.remove("method") else {
            return refuse("method is not a string".into());
        };
        let params = match members.remove("params") {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(params @ Value::Object(_)) => params,
            Some(_) => {
                return Err((answer_to, RpcError::invalid_params("params is not an object")));
            }
        };
        if let Some(name) = members.keys().next() {
            return refuse(format!("unknown member {name:?}"));
        }
        Ok(Request { method, params, id })
    }
}

/// A response that says what went wrong.
pub fn error_response(id: &Value, error: &RpcError) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": error.to_json()})
}

/// Reads one JSON text: a request, a batch of them, or what is neither.
///
/// # Errors
/// The response to one that can't be read. The stream can't be read on after it either.
pub fn read(text: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(text)
        .map_err(|error| error_response(&Value::Null, &RpcError::parse(error)).to_string())
}

/// Calls what was asked for, in order, and gives the response to send; `None` when there is none to send (only
/// notifications).
pub async fn answer<F, R>(request: Value, mut call: F) -> Option<String>
where
    F: FnMut(String, Value) -> R,
    R: Future<Output = Result<Value, RpcError>>,
{
    let requests = match request {
        Value::Array(requests) => requests,
        request => return answer_one(request, &mut call).await.map(|response| response.to_string()),
    };
    if requests.is_empty() || requests.len() > MAX_BATCH {
        let reason = format!("a batch of {} requests; 1 to {MAX_BATCH} are allowed", requests.len());
        return Some(error_response(&Value::Null, &RpcError::invalid_request(reason)).to_string());
    }
    let mut responses = String::new();
    for request in requests {
        let full = responses.len() > MAX_BATCH_ANSWER_BYTES;
        let response = if full { refuse(request) } else { answer_one(request, &mut call).await };
        if let Some(response) = response {
            responses.push(if responses.is_empty() { '[' } else { ',' });
            responses.push_str(&response.to_string());
        }
    }
    (!responses.is_empty()).then(|| responses + "]")
}

/// The response to a request of a batch that is not called any more.
fn refuse(request: Value) -> Option<Value> {
    let reason = format!(
        "not called: the answers to this batch have more than {MAX_BATCH_ANSWER_BYTES} bytes already; ask for less at once"
    );
    let error = RpcError::internal(reason);
    match Request::from_value(request) {
        Ok(request) => Some(error_response(&request.id?, &error)),
        Err((id, error)) => Some(error_response(&id, &error)),
    }
}

async fn answer_one<F, R>(request: Value, call: &mut F) -> Option<Value>
where
    F: FnMut(String, Value) -> R,
    R: Future<Output = Result<Value, RpcError>>,
{
    let request = match Request::from_value(request) {
        Ok(request) => request,
        Err((id, error)) => return Some(error_response(&id, &error)),
    };
    let outcome = call(request.method, request.params).await;
    let id = request.id?;
    Some(match outcome {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => error_response(&id, &error),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn echo(method: String, params: Value) -> Result<Value, RpcError> {
        match method.as_str() {
            "echo" => Ok(params),
            "long" => Ok(json!("x".repeat(MAX_BATCH_ANSWER_BYTES / 2))),
            "fail" => Err(RpcError::errno(19, "No such device", "Malloc9")),
            other => Err(RpcError::method_not_found(other)),
        }
    }

    fn ask(text: &str) -> Option<Value> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answered = match read(text.as_bytes()) {
            Ok(request) => runtime.block_on(answer(request, echo)),
            Err(response) => Some(response),
        };
        answered.map(|text| serde_json::from_str(&text).unwrap())
    }

    fn code(response: &Value) -> i64 {
        response["error"]["code"].as_i64().unwrap()
    }

    // Without it: a client could get an answer that names another request, or none.
    #[test]
    fn a_request_gets_its_answer() {
        let response = ask(r#"{"jsonrpc":"2.0","id":7,"method":"echo","params":{"a":1}}"#);
        assert_eq!(response, Some(json!({"jsonrpc":"2.0","id":7,"result":{"a":1}})));
        let response = ask(r#"{"jsonrpc":"2.0","id":"x","method":"echo"}"#);
        assert_eq!(response, Some(json!({"jsonrpc":"2.0","id":"x","result":{}})));
        let response = ask(r#"{"jsonrpc":"2.0","id":1,"method":"fail"}"#);
        assert_eq!(code(&response.unwrap()), -19);
        for id in ["0", "-7", "18446744073709551615", "1.5", "\"\"", "\"\\u0000\"", "null"] {
            let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"echo\"}}");
            assert_eq!(ask(&text).unwrap()["id"], serde_json::from_str::<Value>(id).unwrap(), "{id}");
        }
    }

    // Without it: a malformed request could be run, dropped silently, or answered with the wrong code.
    #[test]
    fn what_is_no_request_is_told_so() {
        for (text, expected) in [
            (r#"{"id":1,"method":"echo"}"#, -32600),
            (r#"{"jsonrpc":"1.0","id":1,"method":"echo"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":3}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":{},"method":"echo"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":[1],"method":"echo"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":true,"method":"echo"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"echo","parms":{}}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"nosuch"}"#, -32601),
            (r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":[1]}"#, -32602),
            (r#"[]"#, -32600),
        ] {
            assert_eq!(code(&ask(text).unwrap()), expected, "{text}");
        }
        let response = ask("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\\ud800\"}");
        assert_eq!(code(&response.unwrap()), -32700);
    }

    // Without it: a batch could lose answers, mix their order, or answer notifications.
    #[test]
    fn a_batch_is_answered_in_order() {
        let response = ask(r#"[
            {"jsonrpc":"2.0","id":1,"method":"echo","params":{"n":1}},
            {"jsonrpc":"2.0","method":"echo"},
            3,
            {"jsonrpc":"2.0","id":2,"method":"fail"}]"#);
        let response = response.unwrap();
        let answers = response.as_array().unwrap();
        assert_eq!(answers.len(), 3);
        assert_eq!(answers[0]["result"], json!({"n":1}));
        assert_eq!(code(&answers[1]), -32600);
        assert_eq!((answers[2]["id"].as_i64(), code(&answers[2])), (Some(2), -19));
        assert_eq!(ask(r#"[{"jsonrpc":"2.0","method":"echo"}]"#), None);
        assert_eq!(ask(r#"{"jsonrpc":"2.0","method":"echo"}"#), None);
    }

    // Without it: a short batch could have the target hold answers of any length.
    #[test]
    fn a_batch_is_bounded() {
        let batch = |count: usize, method: &str| {
            let one = |id| format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\"}}");
            ask(&format!("[{}]", (0..count).map(one).collect::<Vec<_>>().join(","))).unwrap()
        };
        assert_eq!(batch(MAX_BATCH, "echo").as_array().unwrap().len(), MAX_BATCH);
        assert_eq!(code(&batch(MAX_BATCH + 1, "echo")), -32600);
        let long = batch(5, "long");
        let long = long.as_array().unwrap();
        assert_eq!(long.iter().filter(|response| response["result"].is_string()).count(), 2);
        assert_eq!((long[4]["id"].clone(), code(&long[4])), (json!(4), -32603));
    }
}
