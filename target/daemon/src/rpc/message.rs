//! Requests and responses of JSON-RPC 2.0: one request or a batch of them in, one response, an array of
//! responses or nothing out. Pure but for the call itself, which is handed in.

use std::future::Future;

use serde_json::{Map, Value, json};

use super::error::RpcError;

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

/// Reads one JSON text, calls what it asks for, in order, and gives the response to send; `None` when there
/// is none to send (only notifications). The boolean says whether the stream can be read on after it.
pub async fn answer<F, R>(text: &[u8], mut call: F) -> (Option<Value>, bool)
where
    F: FnMut(String, Value) -> R,
    R: Future<Output = Result<Value, RpcError>>,
{
    match serde_json::from_slice(text) {
        Err(error) => (Some(error_response(&Value::Null, &RpcError::parse(error))), false),
        Ok(Value::Array(requests)) if requests.is_empty() => {
            let error = RpcError::invalid_request("an empty batch");
            (Some(error_response(&Value::Null, &error)), true)
        }
        Ok(Value::Array(requests)) => {
            let mut responses = Vec::new();
            for request in requests {
                responses.extend(answer_one(request, &mut call).await);
            }
            ((!responses.is_empty()).then_some(Value::Array(responses)), true)
        }
        Ok(request) => (answer_one(request, &mut call).await, true),
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
            "fail" => Err(RpcError::errno(19, "No such device", "Malloc9")),
            other => Err(RpcError::method_not_found(other)),
        }
    }

    fn ask(text: &str) -> (Option<Value>, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(answer(text.as_bytes(), echo))
    }

    fn code(response: &Value) -> i64 {
        response["error"]["code"].as_i64().unwrap()
    }

    // Without it: a client could get an answer that names another request, or none.
    #[test]
    fn a_request_gets_its_answer() {
        let (response, go_on) = ask(r#"{"jsonrpc":"2.0","id":7,"method":"echo","params":{"a":1}}"#);
        assert_eq!(response, Some(json!({"jsonrpc":"2.0","id":7,"result":{"a":1}})));
        assert!(go_on);
        let (response, _) = ask(r#"{"jsonrpc":"2.0","id":"x","method":"echo"}"#);
        assert_eq!(response, Some(json!({"jsonrpc":"2.0","id":"x","result":{}})));
        let (response, _) = ask(r#"{"jsonrpc":"2.0","id":1,"method":"fail"}"#);
        assert_eq!(code(&response.unwrap()), -19);
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
            (r#"{"jsonrpc":"2.0","id":1,"method":"echo","parms":{}}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"nosuch"}"#, -32601),
            (r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":[1]}"#, -32602),
            (r#"[]"#, -32600),
        ] {
            let (response, go_on) = ask(text);
            assert_eq!(code(&response.unwrap()), expected, "{text}");
            assert!(go_on, "{text}");
        }
        let (response, go_on) = ask("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\\ud800\"}");
        assert_eq!(code(&response.unwrap()), -32700);
        assert!(!go_on);
    }

    // Without it: a batch could lose answers, mix their order, or answer notifications.
    #[test]
    fn a_batch_is_answered_in_order() {
        let (response, _) = ask(r#"[
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
        assert_eq!(ask(r#"[{"jsonrpc":"2.0","method":"echo"}]"#).0, None);
        assert_eq!(ask(r#"{"jsonrpc":"2.0","method":"echo"}"#).0, None);
    }
}
