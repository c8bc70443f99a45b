/* Texts of configuration files: decoded within their bounds, or refused with a sentence. */
#include "control/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);

/* libconfig's scanner (1.5) leaks the text of a string that does not end; the daemon reads one file
 * and ends when it is bad. */
const char *__lsan_default_suppressions(void)
{
    return "leak:libconfig.so\n";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct control_config config;
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    struct vp_error err = {0};
    control_config_defaults(&config);
    /* An include would read files of this machine. */
    int rc = strstr(text, "@include") ? 0 : control_config_parse(&config, text, "fuzz", &err);
    if (rc != 0 && (rc != VP_E_CONFIG_BAD || strncmp(err.text, "fuzz:", 5) != 0))
        abort();
    if (rc == 0 && (config.reactors > CONTROL_REACTORS_MAX || config.socket[0] != '/' ||
                    config.disk_dir_count > CONTROL_DISK_DIRS_MAX))
        abort();
    free(text);
    return 0;
}
