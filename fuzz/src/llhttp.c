/* Reads one HTTP message with llhttp, and tells its parts. */

#include <llhttp.h>
#include <string.h>

enum part { TARGET, NAME, VALUE, FIELD, BODY };

typedef void (*told)(void *to, int part, const char *at, size_t length);

struct outcome {
    const char *method;
    size_t length;
    int has_head, is_complete, is_refused, minor, status;
};

struct message {
    llhttp_t parser;
    told told;
    void *to;
    struct outcome *outcome;
    int has_no_body;
};

#define PART(name, part)                                                   \
    static int name(llhttp_t *parser, const char *at, size_t length) {     \
        struct message *message = parser->data;                            \
        message->told(message->to, part, at, length);                      \
        return 0;                                                          \
    }

PART(on_url, TARGET)
PART(on_header_field, NAME)
PART(on_header_value, VALUE)
PART(on_body, BODY)

static int on_header_value_complete(llhttp_t *parser) {
    struct message *message = parser->data;
    /* Trailers are no fields. */
    if (!message->outcome->has_head) message->told(message->to, FIELD, NULL, 0);
    return 0;
}

static int on_headers_complete(llhttp_t *parser) {
    struct message *message = parser->data;
    int status = parser->status_code;
    message->outcome->has_head = 1;
    /* llhttp leaves this to those who use it (RFC 9112, 6.3). */
    int has_none = parser->type == HTTP_RESPONSE && (status / 100 == 1 || status == 204 || status == 304);
    return message->has_no_body || has_none ? 1 : 0;
}

static int on_message_complete(llhttp_t *parser) {
    struct message *message = parser->data;
    message->outcome->is_complete = 1;
    /* What follows is not ours. */
    return HPE_PAUSED;
}

void egret_llhttp(const char *data, size_t length, int is_request, int is_lenient, int has_no_body, told told, void *to,
                  struct outcome *outcome) {
    llhttp_settings_t settings;
    struct message message;
    memset(outcome, 0, sizeof *outcome);
    memset(&message, 0, sizeof message);
    llhttp_settings_init(&settings);
    settings.on_url = on_url;
    settings.on_header_field = on_header_field;
    settings.on_header_value = on_header_value;
    settings.on_header_value_complete = on_header_value_complete;
    settings.on_headers_complete = on_headers_complete;
    settings.on_body = on_body;
    settings.on_message_complete = on_message_complete;
    llhttp_init(&message.parser, is_request ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
    message.parser.data = &message;
    message.told = told;
    message.to = to;
    message.outcome = outcome;
    message.has_no_body = has_no_body;
    llhttp_set_lenient_headers(&message.parser, is_lenient);
    llhttp_set_lenient_chunked_length(&message.parser, is_lenient);
    llhttp_set_lenient_transfer_encoding(&message.parser, is_lenient);
    enum llhttp_errno ended = llhttp_execute(&message.parser, data, length);
    outcome->length = length;
    if (ended == HPE_PAUSED) outcome->length = llhttp_get_error_pos(&message.parser) - data;
    if (ended == HPE_OK && outcome->has_head && llhttp_message_needs_eof(&message.parser)) llhttp_finish(&message.parser);
    outcome->is_refused = ended != HPE_OK && ended != HPE_PAUSED && ended != HPE_PAUSED_UPGRADE;
    outcome->minor = message.parser.http_major == 1 ? message.parser.http_minor : -1;
    outcome->status = message.parser.status_code;
    outcome->method = llhttp_method_name(message.parser.method);
}
