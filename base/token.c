/* SPDX-License-Identifier: Apache-2.0 */
#include "base/token.h"

#include "base/log.h"
#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static const char spaces[] = " \t\r\n\v\f";

static void warn_once(const char *path)
{
    static atomic_bool warned;
    if (!atomic_exchange(&warned, true))
        kolo__log(KOLO__LOG_WARN,
                  "everybody on this host may read the token in %s: chmod 600 it (a Kubernetes "
                  "Secret: defaultMode: 0400)",
                  path);
}

static kolo_status unreadable(const char *path, int failure)
{
    return kolo__error(
        KOLO_ERR_CONFIG,
        "cannot read KOLO_TOKEN_FILE=%s: %s (in a pod: mount the Secret there, with a "
        "key of the file's name)",
        path, strerror(failure));
}

/* A token with white space around it; a file that has more is none, for part of a token would be
 * believed. */
enum { TOKEN_FILE_BYTES = 4 * KOLO__TOKEN_BYTES };

static kolo_status read_file(const char *path, char text[TOKEN_FILE_BYTES + 1])
{
    struct stat about;
    size_t bytes = 0;
    ssize_t got = 1;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return unreadable(path, errno);
    if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && (about.st_mode & S_IROTH) != 0)
        warn_once(path);
    while (bytes < TOKEN_FILE_BYTES && got > 0) {
        got = read(fd, text + bytes, TOKEN_FILE_BYTES - bytes);
        bytes += got > 0 ? (size_t)got : 0;
    }
    int reason = errno;
    close(fd);
    text[bytes] = '\0';
    if (got < 0)
        return unreadable(path, reason);
    if (bytes == TOKEN_FILE_BYTES)
        return kolo__error(KOLO_ERR_CONFIG,
                           "KOLO_TOKEN_FILE=%s is longer than a token of %d "
                           "characters with white space around it",
                           path, KOLO__TOKEN_BYTES - 1);
    if (strlen(text) != bytes)
        return kolo__error(KOLO_ERR_CONFIG, "KOLO_TOKEN_FILE=%s has a zero byte: give a text",
                           path);
    return KOLO_OK;
}

/* ---- derived in pods ------------------------------------------------------------------------ */

enum { KEY_FILE_BYTES = 16384, DERIVED_BYTES = 32 };

static bool derive(const unsigned char *secret, size_t bytes, unsigned char *derived)
{
    static const unsigned char salt[] = "kolo", purpose[] = "token from the job's ssh key";
    size_t length = DERIVED_BYTES;
    OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL); /* as in secure_credentials.c */
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, NULL);
    bool good = context != NULL && EVP_PKEY_derive_init(context) == 1 &&
                EVP_PKEY_CTX_set_hkdf_md(context, EVP_sha256()) == 1 &&
                EVP_PKEY_CTX_set1_hkdf_salt(context, salt, sizeof salt - 1) == 1 &&
                EVP_PKEY_CTX_set1_hkdf_key(context, secret, (int)bytes) == 1 &&
                EVP_PKEY_CTX_add1_hkdf_info(context, purpose, sizeof purpose - 1) == 1 &&
                EVP_PKEY_derive(context, derived, &length) == 1;
    EVP_PKEY_CTX_free(context);
    return good;
}

static kolo_status derive_from(int fd, const char *path, char token[KOLO__TOKEN_BYTES])
{
    unsigned char secret[KEY_FILE_BYTES], derived[DERIVED_BYTES] = {0};
    size_t bytes = 0;
    ssize_t got = 1;
    while (bytes < sizeof secret && got > 0) {
        got = read(fd, secret + bytes, sizeof secret - bytes);
        bytes += got > 0 ? (size_t)got : 0;
    }
    kolo_status status = KOLO_OK;
    if (got < 0)
        status = kolo__error_errno(errno, "cannot read the job's ssh key %s", path);
    else if (bytes == 0 || bytes == sizeof secret)
        status = kolo__error(KOLO_ERR_CONFIG, "the job's ssh key %s is %s", path,
                             bytes == 0 ? "empty" : "no key: it is too long");
    else if (!derive(secret, bytes, derived))
        status = kolo__error(KOLO_ERR_SYSTEM, "OpenSSL cannot do HKDF with SHA-256");
    for (size_t i = 0; status == KOLO_OK && i < sizeof derived; i++)
        snprintf(token + 2 * i, 3, "%02x", derived[i]);
    explicit_bzero(secret, sizeof secret);
    explicit_bzero(derived, sizeof derived);
    return status;
}

kolo_status kolo__token_from_key(const char *home, char token[KOLO__TOKEN_BYTES])
{
    const char *const homes[] = {home, "/root", "/home/mpiuser"};
    char path[512];
    token[0] = '\0';
    for (size_t i = 0; i < sizeof homes / sizeof *homes; i++) {
        if (homes[i] == NULL || homes[i][0] == '\0')
            continue;
        snprintf(path, sizeof path, "%s/.ssh/id_rsa", homes[i]);
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
            continue; /* not there, or not this user's */
        kolo_status status = derive_from(fd, path, token);
        close(fd);
        return status;
    }
    return KOLO_OK;
}

/* Only there are keys the job's: elsewhere they are the user's own. A worker of a TrainJob has
 * nothing else that tells. mpirun's ranks share a token in their own way, and must: sshd, which
 * starts most of them, gives them none of these variables. */
static bool is_in_pod(void)
{
    static const char *const signs[] = {"KUBERNETES_SERVICE_HOST", "K_MPI_JOB_ROLE",
                                        "OMPI_MCA_orte_default_hostfile", "HYDRA_HOST_FILE",
                                        "I_MPI_HYDRA_HOST_FILE"};
    if (getenv("OMPI_COMM_WORLD_RANK") != NULL || getenv("PMI_RANK") != NULL)
        return false;
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (getenv(signs[i]) != NULL)
            return true;
    return false;
}

/* ---- all ------------------------------------------------------------------------------------ */

kolo_status kolo__token_read(const struct kolo__config *config, char token[KOLO__TOKEN_BYTES])
{
    char text[TOKEN_FILE_BYTES + 1] = "";
    bool given = config->token[0] != '\0', file = !given && config->token_file[0] != '\0';
    kolo_status status = KOLO_OK;
    token[0] = '\0';
    if (file)
        status = read_file(config->token_file, text);
    else
        snprintf(text, sizeof text, "%s", config->token);
    const char *begin = text + strspn(text, spaces);
    size_t bytes = strlen(begin);
    while (bytes > 0 && strchr(spaces, begin[bytes - 1]) != NULL)
        bytes--;
    if (status == KOLO_OK && bytes >= KOLO__TOKEN_BYTES)
        status = kolo__error(KOLO_ERR_CONFIG, "%s is longer than %d characters",
                             file ? "KOLO_TOKEN_FILE" : "KOLO_TOKEN", KOLO__TOKEN_BYTES - 1);
    else if (status == KOLO_OK && bytes > 0 && bytes < KOLO__TOKEN_LEAST)
        status = kolo__error(
            KOLO_ERR_CONFIG,
            "the token in %s has %zu characters, so it can be guessed, and whoever knows it is "
            "part "
            "of the job: give at least %d, random ones (head -c 32 /dev/urandom | base64)",
            file ? config->token_file : "KOLO_TOKEN", bytes, KOLO__TOKEN_LEAST);
    else if (status == KOLO_OK && bytes == 0 && file)
        status = kolo__error(KOLO_ERR_CONFIG, "KOLO_TOKEN_FILE=%s is empty", config->token_file);
    if (status == KOLO_OK) {
        memcpy(token, begin, bytes);
        token[bytes] = '\0';
    }
    explicit_bzero(text, sizeof text);
    if (status == KOLO_OK && token[0] == '\0' && is_in_pod())
        status = kolo__token_from_key(getenv("HOME"), token);
    return status;
}

kolo_status kolo__token_read_with_key(const struct kolo__config *config,
                                      char token[KOLO__TOKEN_WITH_KEY_BYTES])
{
    char key[KOLO__TOKEN_BYTES] = "";
    kolo_status status = kolo__token_read(config, token);
    if (status == KOLO_OK && token[0] != '\0' && is_in_pod())
        status = kolo__token_from_key(getenv("HOME"), key);
    if (status == KOLO_OK && strcmp(token, key) != 0)
        snprintf(token + strlen(token), KOLO__TOKEN_BYTES, "%s", key);
    explicit_bzero(key, sizeof key);
    return status;
}

kolo_status kolo__token_permits(const char *token, bool insecure,
                                const struct kolo__address *address)
{
    char text[80];
    if (token[0] != '\0' || insecure || kolo__address_is_loopback(address))
        return KOLO_OK;
    return kolo__error(KOLO_ERR_CONFIG,
                       "the job has no token, so nothing may listen on %s: set KOLO_TOKEN_FILE (or "
                       "KOLO_TOKEN) to the same secret for every process; or, where you trust "
                       "everybody who can reach that address, KOLO_INSECURE=1 (--insecure)",
                       kolo__address_text(address, text, sizeof text));
}

kolo_status kolo__token_random(char *text, size_t bytes)
{
    unsigned char byte;
    for (size_t i = 0; i < bytes; i++) {
        while (getrandom(&byte, 1, 0) != 1)
            if (errno != EINTR)
                return kolo__error_errno(errno, "cannot get random numbers");
        snprintf(text + 2 * i, 3, "%02x", byte);
    }
    return KOLO_OK;
}
