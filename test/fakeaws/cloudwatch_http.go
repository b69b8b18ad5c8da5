package fakeaws

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The path and headers are those of the Smithy RPC v2 protocol with CBOR
// (https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html).
const (
	cwBase     = "/service/GraniteServiceVersion20100801/operation/"
	cwProtocol = "rpc-v2-cbor"

	// maxBody is the limit of a request ("1 MB", CloudWatch service quotas). AWS
	// does not say of which of the two sizes; here it is of both.
	maxBody = 1000 * 1000
	// maxSkew is how far a request's date may be off (Signature Version 4).
	maxSkew = 15 * time.Minute
)

// cwError is an error of the service: the shape's name and the code that the
// older query protocol had for it, which clients that say so get, too.
type cwError struct {
	status               int
	shape, code, message string
}

func (e *cwError) Error() string { return e.shape + ": " + e.message }

func invalidValue(format string, args ...any) *cwError {
	return &cwError{http.StatusBadRequest, "InvalidParameterValueException", "InvalidParameterValue", fmt.Sprintf(format, args...)}
}

func invalidCombination(format string, args ...any) *cwError {
	return &cwError{http.StatusBadRequest, "InvalidParameterCombinationException", "InvalidParameterCombination", fmt.Sprintf(format, args...)}
}

func missing(parameter string) *cwError {
	return &cwError{http.StatusBadRequest, "MissingRequiredParameterException", "MissingParameter", "The parameter " + parameter + " is required."}
}

func malformed(format string, args ...any) *cwError {
	return &cwError{http.StatusBadRequest, "SerializationException", "MalformedInput", fmt.Sprintf(format, args...)}
}

var (
	cwThrottled = &cwError{http.StatusBadRequest, "ThrottlingException", "Throttling", "Rate exceeded"}
	cwInternal  = &cwError{http.StatusInternalServerError, "InternalServiceFault", "InternalServiceError", "The request processing has failed due to some unknown error."}
	cwExpired   = &cwError{http.StatusForbidden, "ExpiredTokenException", "ExpiredToken", "The security token included in the request is expired"}
	cwUnsigned  = &cwError{http.StatusForbidden, "MissingAuthenticationTokenException", "MissingAuthenticationToken", "Request is missing Authentication Token"}
	cwTooLarge  = &cwError{http.StatusRequestEntityTooLarge, "RequestEntityTooLargeException", "RequestEntityTooLarge", "The request is larger than 1 MB."}
)

func cwDenied(action string) *cwError {
	return &cwError{
		http.StatusForbidden, "AccessDeniedException", "AccessDenied",
		"User: arn:aws:sts::123456789012:assumed-role/host/i-0 is not authorized to perform: cloudwatch:" + action + " because no identity-based policy allows the cloudwatch:" + action + " action",
	}
}

func (c *CloudWatch) serve(w http.ResponseWriter, req *http.Request) {
	action := strings.TrimPrefix(req.URL.Path, cwBase)
	body, zipped, readErr := readBody(req)
	c.mu.Lock()
	c.calls[action]++
	if zipped {
		c.gzipped++
	}
	out, err, after := c.handle(action, req, body, readErr)
	released := c.released
	c.mu.Unlock()
	switch after {
	case hang:
		select {
		case <-released:
		case <-req.Context().Done():
		}
		panic(http.ErrAbortHandler)
	case cut:
		panic(http.ErrAbortHandler)
	case respond:
	}
	w.Header().Set("Content-Type", "application/cbor")
	w.Header().Set("Smithy-Protocol", cwProtocol)
	w.Header().Set("X-Amzn-Requestid", "00000000-0000-0000-0000-000000000000")
	if err == nil {
		_, _ = w.Write(cborEncode(out))
		return
	}
	if req.Header.Get("X-Amzn-Query-Mode") == "true" {
		kind := "Sender"
		if err.status >= 500 {
			kind = "Receiver"
		}
		w.Header().Set("X-Amzn-Query-Error", err.code+";"+kind)
	}
	w.WriteHeader(err.status)
	_, _ = w.Write(cborEncode(map[string]any{"__type": "com.amazonaws.cloudwatch#" + err.shape, "message": err.message}))
}

// ending is what becomes of a connection.
type ending int

const (
	respond ending = iota
	cut
	hang
)

// handle answers a request, or tells what to do with its connection.
func (c *CloudWatch) handle(action string, req *http.Request, body []byte, readErr *cwError) (map[string]any, *cwError, ending) {
	if err := c.admit(action, req, readErr); err != nil {
		return nil, err, respond
	}
	fault, ok := c.fault(action)
	if ok {
		switch fault {
		case Throttled, PriorRequest:
			return nil, cwThrottled, respond
		case Internal:
			return nil, cwInternal, respond
		case Denied:
			return nil, cwDenied(action), respond
		case Expired:
			return nil, cwExpired, respond
		case CutBefore:
			return nil, nil, cut
		case CutAfter, HangAfter:
		}
	}
	out, err := c.perform(action, body)
	if err != nil && err.status != http.StatusForbidden {
		c.refused = append(c.refused, action+": "+err.Error())
	}
	switch {
	case ok && fault == CutAfter:
		return nil, nil, cut
	case ok && fault == HangAfter:
		return nil, nil, hang
	}
	return out, err, respond
}

// admit is what stands before an operation: the protocol, the signature, the
// rate.
func (c *CloudWatch) admit(action string, req *http.Request, readErr *cwError) *cwError {
	h := req.Header
	switch {
	case req.Method != http.MethodPost || !strings.HasPrefix(req.URL.Path, cwBase) || req.URL.RawQuery != "":
		return &cwError{http.StatusNotFound, "UnknownOperationException", "InvalidAction", req.Method + " " + req.URL.Path}
	case action != "PutMetricData" && action != "GetMetricData":
		return &cwError{http.StatusNotFound, "UnknownOperationException", "InvalidAction", "Could not find operation " + action + "."}
	case h.Get("Smithy-Protocol") != cwProtocol || h.Get("Content-Type") != "application/cbor" || h.Get("Accept") != "application/cbor":
		return malformed("Smithy-Protocol, Content-Type or Accept is not that of %s", cwProtocol)
	case !signed(req, "monitoring"):
		return cwUnsigned
	}
	at, err := time.Parse("20060102T150405Z", h.Get("X-Amz-Date"))
	if skew := c.now().Sub(at).Abs(); err != nil || skew > maxSkew {
		return &cwError{http.StatusForbidden, "InvalidSignatureException", "SignatureDoesNotMatch", "Signature expired: " + h.Get("X-Amz-Date") + " is now earlier than 15 min. ago"}
	}
	if c.rate > 0 && !c.bucket.take(1, c.rate, c.burst, time.Now()) {
		return cwThrottled
	}
	return readErr
}

// perform does what a request asks for.
func (c *CloudWatch) perform(action string, body []byte) (map[string]any, *cwError) {
	v, err := cborDecode(body)
	if err != nil {
		return nil, malformed("%v", err)
	}
	in, ok := v.(map[string]any)
	if !ok {
		return nil, malformed("the request is no structure")
	}
	m := &members{fields: in}
	if action == "GetMetricData" {
		return c.getMetricData(m)
	}
	data, bad := parsePut(m, c.now())
	if bad != nil {
		return nil, bad
	}
	if namespace := data[0].Namespace; c.namespace != nil && !slices.Contains(c.namespace, namespace) {
		return nil, cwDenied(action)
	}
	c.sizes = append(c.sizes, len(data))
	c.bodies = append(c.bodies, len(body))
	c.accept(data)
	return map[string]any{}, nil
}

// readBody returns a request's body, uncompressed.
func readBody(req *http.Request) (body []byte, zipped bool, bad *cwError) {
	raw, err := io.ReadAll(io.LimitReader(req.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, false, malformed("%v", err)
	case len(raw) > maxBody:
		return nil, false, cwTooLarge
	}
	switch encoding := req.Header.Get("Content-Encoding"); encoding {
	case "":
		return raw, false, nil
	case "gzip":
		body, err := gunzip(raw)
		if errors.Is(err, errTooLarge) {
			return nil, true, cwTooLarge
		}
		if err != nil {
			return nil, true, malformed("%v", err)
		}
		return body, true, nil
	default:
		return nil, false, malformed("Content-Encoding %q is not supported", encoding)
	}
}

var errTooLarge = errors.New("too large")

// gunzip returns what exactly one gzip stream holds.
func gunzip(raw []byte) ([]byte, error) {
	from := bytes.NewReader(raw)
	z, err := gzip.NewReader(from)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	body, err := io.ReadAll(io.LimitReader(z, maxBody+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxBody:
		return nil, errTooLarge
	case from.Len() > 0:
		return nil, errors.New("there is something behind the gzip stream")
	}
	return body, nil
}
