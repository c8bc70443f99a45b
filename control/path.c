/* See path.h. */
#include "control/path.h"

#include "base/bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *path_shown(const char *path)
{
    char text[CONTROL_PATH_BYTES];
    (void)snprintf(text, sizeof(text), "%s", path);
    bytes_make_printable(text);
    return json_string(text);
}

json_t *path_to_json(const char *path)
{
    char shown[CONTROL_PATH_BYTES], hex[2 * CONTROL_PATH_BYTES] = "";
    (void)snprintf(shown, sizeof(shown), "%s", path);
    bytes_make_printable(shown);
    if (strcmp(shown, path) == 0)
        return json_string(path);
    size_t len = strnlen(path, CONTROL_PATH_BYTES - 1);
    for (size_t i = 0; i < len; i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", (unsigned char)path[i]);
    return json_pack("{s:s}", "bytes", hex);
}

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

static bool path_of_hex(const char *hex, char out[static CONTROL_PATH_BYTES])
{
    size_t len = strlen(hex);
    if (len == 0 || len % 2 || len / 2 >= CONTROL_PATH_BYTES)
        return false;
    for (size_t i = 0; i < len / 2; i++) {
        int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
        if (high < 0 || low < 0 || (high == 0 && low == 0))
            return false;
        out[i] = (char)(high << 4 | low);
    }
    out[len / 2] = 0;
    return true;
}

bool path_of_json(const json_t *j, char out[static CONTROL_PATH_BYTES])
{
    const char *text = json_string_value(j);
    if (!text) {
        const char *hex = json_string_value(json_object_get(j, "bytes"));
        return hex && path_of_hex(hex, out);
    }
    size_t len = strlen(text);
    if (len == 0 || len >= CONTROL_PATH_BYTES)
        return false;
    memcpy(out, text, len + 1);
    return true;
}
