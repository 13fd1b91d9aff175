/* Hands a CNI call to ovsnetd and prints its answer: the first half of a compiled executable.
 *
 * An interpreter's start is 5 ms, half of what a whole ADD takes, so cni/install.py compiles this where it finds a C compiler
 * (docs/decisions/0016). It does the usual case of ovsnet_shim.py and nothing more: whatever else happens is handed over to
 * that program, which follows the compiled code in the same file, with the same environment, standard input and output.
 *
 * cni/install.py puts definitions before this: SOCKET and PATH (strings), DEADLINE (seconds), LIMIT (bytes of a request's
 * body), PYTHON (path of the interpreter).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif
#define CHUNK 65536

extern char **environ;

static char body[LIMIT + 2 * CHUNK];
static size_t records; /* bytes of the environment in `body`, before standard input */
static size_t length;  /* of all in `body` */
static volatile sig_atomic_t late;

static void expired(int number) {
    (void)number;
    late = 1;
}

/* A descriptor with these bytes, to be read from the beginning; it stays open when another program is executed. */
static int memory(const char *data, size_t size) {
    int fd = memfd_create("ovsnet", 0);
    for (size_t done = 0; fd >= 0 && done < size;) {
        ssize_t written = write(fd, data + done, size - done);
        if (written <= 0)
            return -1;
        done += (size_t)written;
    }
    if (fd >= 0 && lseek(fd, 0, SEEK_SET))
        return -1;
    return fd;
}

/* The Python program at the end of this file, whose length is its last line; see cni/install.py. */
static int program(void) {
    enum { TAIL = 16 };
    char tail[TAIL + 1] = "";
    int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    off_t end = lseek(self, -TAIL, SEEK_END);
    if (self < 0 || end < 0 || read(self, tail, TAIL) != TAIL)
        return -1;
    long size = strtol(tail + 2, NULL, 10); /* "# 0000000012345\n" */
    if (size <= 0 || size > end)
        return -1;
    char *text = mmap(NULL, (size_t)end, PROT_READ, MAP_PRIVATE, self, 0);
    return text == MAP_FAILED ? -1 : memory(text + end - size, (size_t)size);
}

/* Leave the call to the Python program. `reason` is "" for a call that it is to make itself, else why this one failed. */
static _Noreturn void hand_over(const char *reason) {
    static const struct itimerval never;
    setitimer(ITIMER_REAL, &never, NULL);
    char path[32];
    int script = program();
    int input = length > records ? memory(body + records, length - records) : 0;
    if (script >= 0 && input >= 0 && (!input || dup2(input, 0) == 0)) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", script);
        execl(PYTHON, PYTHON, "-ISE", path, reason, (char *)NULL);
    }
    dprintf(1, "{\"cniVersion\": \"1.0.0\", \"code\": 5, \"msg\": \"%s cannot be executed: %s\", \"details\": "
               "\"it is needed when ovsnetd does not answer as usual\"}",
            PYTHON, strerror(errno));
    _exit(1);
}

/* A call was interrupted, or failed: whether to try it again. */
static int again(void) {
    return errno == EINTR && !late;
}

static const char *failure(void) {
    return late ? "late" : "broken";
}

/* The CNI_* variables as NUL-terminated records, then one empty one. The first of a name counts, as for Python. */
static void add_environment(void) {
    for (char **one = environ; *one; one++) {
        size_t size = strlen(*one) + 1;
        char *equals = strchr(*one, '=');
        if (strncmp(*one, "CNI_", 4) || !equals)
            continue;
        char **other = environ;
        while (strncmp(*other, *one, (size_t)(equals - *one) + 1))
            other++;
        if (other != one)
            continue;
        if (length + size >= LIMIT)
            hand_over("");
        memcpy(body + length, *one, size);
        length += size;
    }
    body[length++] = '\0';
    records = length;
}

static void add_input(void) {
    while (length <= LIMIT) {
        ssize_t got = read(0, body + length, CHUNK);
        if (got > 0)
            length += (size_t)got;
        else if (!got)
            return;
        else if (!again())
            hand_over(late ? "late" : "");
    }
    hand_over(""); /* too much */
}

/* The request is sent and the answer read, up to its end; its length. */
static size_t ask(int link, char **answer) {
    char head[256];
    int size = snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: ovsnet\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
                        PATH, length);
    struct iovec parts[] = {{head, (size_t)size}, {body, length}};
    for (struct iovec *part = parts; part < parts + 2;) {
        ssize_t sent = writev(link, part, (int)(parts + 2 - part));
        if (sent < 0 && !again())
            hand_over(failure());
        for (; sent > 0 && part < parts + 2; part++) {
            size_t taken = (size_t)sent < part->iov_len ? (size_t)sent : part->iov_len;
            part->iov_base = (char *)part->iov_base + taken;
            part->iov_len -= taken;
            sent -= (ssize_t)taken;
            if (part->iov_len)
                break;
        }
    }
    for (size_t room = CHUNK, have = 0;;) {
        if (!(*answer = realloc(*answer, room + 1)))
            hand_over("broken");
        ssize_t got = read(link, *answer + have, room - have);
        if (got < 0 && !again())
            hand_over(failure());
        if (!got) {
            (*answer)[have] = '\0';
            return have;
        }
        have += got > 0 ? (size_t)got : 0;
        room += have == room ? room : 0;
    }
}

int main(void) {
    struct sigaction action = {.sa_handler = expired}; /* no SA_RESTART: a call that waits ends */
    /* Again and again, for it may come just before such a call. */
    struct itimerval timer = {.it_value = {.tv_sec = DEADLINE}, .it_interval = {.tv_usec = 100000}};
    sigaction(SIGALRM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    setitimer(ITIMER_REAL, &timer, NULL);
    if (!getenv("CNI_COMMAND"))
        hand_over("");
    add_environment();
    add_input();

    int link = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, SOCKET, sizeof address.sun_path - 1);
    if (link < 0 || connect(link, (struct sockaddr *)&address, sizeof address))
        hand_over(late ? "late" : "");

    char *answer = NULL;
    size_t have = ask(link, &answer);
    char *end = strstr(answer, "\r\n\r\n");
    char *field = strcasestr(answer, "\r\ncontent-length:");
    if (!end || have < 12 || !field || field > end)
        hand_over("broken");
    if (!strncmp(answer + 9, "202", 3))
        hand_over(""); /* another IPAM plugin has to be executed */
    int status = strncmp(answer + 9, "200", 3) != 0;
    char *output = end + 4;
    size_t size = have - (size_t)(output - answer);
    if (strtoul(field + 17, NULL, 10) != size || (*output != '{' && (size || status)))
        hand_over("broken");
    while (size) {
        ssize_t written = write(1, output, size);
        if (written < 0 && !again())
            return 1; /* nobody reads it */
        output += written > 0 ? written : 0;
        size -= written > 0 ? (size_t)written : 0;
    }
    return status;
}
