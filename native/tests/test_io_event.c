/* Events: every line is one whole JSON object whoever writes, and die() reports before it exits. */
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "check.h"
#include "io/clock.h"
#include "io/event.h"

#define THREADS 4
#define EACH 500

static void *emit_many(void *arg)
{
    for (int i = 0; i < EACH; i++)
        event_emit("tick", "{s:i,s:i,s:s}", "thread", *(int *)arg, "number", i, "text", "a\nb");
    return NULL;
}

/* Runs `child` with its stdout in a temporary file; returns its wait status and that file. */
static int run_child(void (*child)(void), FILE **output)
{
    pid_t pid;
    int status;

    *output = tmpfile();
    CHECK(*output != NULL);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(dup2(fileno(*output), STDOUT_FILENO) == STDOUT_FILENO);
        child();
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    rewind(*output);
    return status;
}

static json_t *read_event(FILE *output)
{
    char line[512];
    json_t *event;

    if (fgets(line, sizeof(line), output) == NULL)
        return NULL;
    event = json_loads(line, 0, NULL);
    CHECK(event != NULL && json_is_object(event));
    CHECK(strcmp(json_string_value(json_object_get(event, "process")), "tester") == 0);
    return event;
}

static void child_emits(void)
{
    pthread_t threads[THREADS];
    int numbers[THREADS];

    event_process("tester");
    event_emit("plain", NULL);
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, emit_many, &numbers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

/* More than may wait, and an urgent one at the end. */
static void child_has_routine(void)
{
    event_process("tester");
    for (int i = 0; i < EACH; i++)
        event_routine("tick", "{s:i,s:s}", "number", i, "text", "routine");
    event_emit("tick", "{s:i}", "number", EACH);
}

static void child_flushes(void)
{
    event_process("tester");
    event_emit("tick", "{s:i}", "number", 0);
    event_routine("tick", "{s:i}", "number", 1);
    for (uint64_t begun = clock_ns(); clock_ns() - begun < 400000000ull;)
        event_flush();
}

static void child_dies(void)
{
    CHECK(freopen("/dev/null", "w", stderr) != NULL);
    event_process("tester");
    die(4, "lost %d things", 3);
}

static void child_has_a_bad_format(void)
{
    CHECK(freopen("/dev/null", "w", stderr) != NULL);
    event_process("tester");
    event_emit("bad", "{s:", "key");
}

static void test_lines_of_many_threads(void)
{
    uint64_t before = clock_ns();
    int next[THREADS] = {0};
    FILE *output;
    json_t *event;

    CHECK(run_child(child_emits, &output) == 0);
    event = read_event(output);
    CHECK(strcmp(json_string_value(json_object_get(event, "event")), "plain") == 0);
    CHECK((uint64_t)json_integer_value(json_object_get(event, "t_ns")) >= before);
    CHECK((uint64_t)json_integer_value(json_object_get(event, "t_ns")) <= clock_ns());
    json_decref(event);
    while ((event = read_event(output)) != NULL) {
        json_int_t thread = json_integer_value(json_object_get(event, "thread"));

        CHECK(thread >= 0 && thread < THREADS);
        CHECK(json_integer_value(json_object_get(event, "number")) == next[thread]++);
        CHECK(strcmp(json_string_value(json_object_get(event, "text")), "a\nb") == 0);
        json_decref(event);
    }
    for (int i = 0; i < THREADS; i++)
        CHECK(next[i] == EACH);
    fclose(output);
}

/* All in order, some in lines of many, the last one in a line of its own if it was urgent. */
static void test_routine(void (*child)(void), int count, int urgent)
{
    FILE *output;
    static char line[32768];
    int number = 0, single = 0;

    CHECK(run_child(child, &output) == 0);
    while (fgets(line, sizeof(line), output) != NULL) {
        json_t *tree = json_loads(line, 0, NULL), *batch = json_object_get(tree, "routine");

        CHECK(tree != NULL && (batch == NULL || json_array_size(batch) > 0));
        single += batch == NULL;
        for (size_t i = 0; i < (batch ? json_array_size(batch) : 1); i++, number++) {
            json_t *event = batch ? json_array_get(batch, i) : tree;
            CHECK(strcmp(json_string_value(json_object_get(event, "process")), "tester") == 0);
            CHECK(json_integer_value(json_object_get(event, "number")) == number);
        }
        json_decref(tree);
    }
    CHECK(number == count && single == urgent);
    fclose(output);
}

static void test_die(void (*child)(void), int code, const char *message)
{
    FILE *output;
    int status = run_child(child, &output);
    json_t *event = read_event(output);

    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == code);
    CHECK(event != NULL);
    CHECK(strcmp(json_string_value(json_object_get(event, "event")), "fatal") == 0);
    CHECK(strstr(json_string_value(json_object_get(event, "message")), message) != NULL);
    json_decref(event);
    fclose(output);
}

int main(void)
{
    test_lines_of_many_threads();
    test_routine(child_has_routine, EACH + 1, 1);
    test_routine(child_flushes, 2, 1);
    test_die(child_dies, 4, "lost 3 things");
    test_die(child_has_a_bad_format, 3, "does not pack");
    return 0;
}
