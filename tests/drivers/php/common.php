<?php
// What both PHP programs share: where to connect, and counting checks.

declare(strict_types=1);

const TYPES = "SELECT 1, CAST(-9223372036854775808 AS SIGNED), 18446744073709551615, CAST('12345.678901' AS DECIMAL(20,6)), 1.5e0,"
    . " CAST(x'ff00fe' AS BINARY(3)), NULL, 'h\u{e9}llo', '\u{1f600}\u{65e5}\u{672c}', '', CAST('2024-02-29' AS DATE),"
    . " CAST('2024-02-29 12:34:56.123456' AS DATETIME(6)), CAST('-12:34:56' AS TIME)";
const EXPECTED = ['1', '-9223372036854775808', '18446744073709551615', '12345.678901', '1.5', "\xff\x00\xfe", null,
    "h\u{e9}llo", "\u{1f600}\u{65e5}\u{672c}", '', '2024-02-29', '2024-02-29 12:34:56.123456', '-12:34:56'];
const LARGE = 20 * 1024 * 1024;

$checks = 0;
$driver = '';

function setting(string $name): string
{
    return (string) getenv("SP_$name");
}

function tls(): bool
{
    return getenv('SP_TLS') === '1';
}

function equal(string $what, mixed $got, mixed $expected): void
{
    global $checks, $driver;
    if ($got !== $expected) {
        $say = fn ($value) => substr(json_encode($value, JSON_INVALID_UTF8_SUBSTITUTE) ?: '?', 0, 300);
        fwrite(STDERR, "FAILED $driver: $what: expected {$say($expected)}, got {$say($got)}\n");
        exit(1);
    }
    $checks++;
}

/** Every value as text, since the text and the binary protocol give different PHP types. */
function texts(array $row): array
{
    return array_map(fn ($value) => $value === null ? null : (string) $value, array_values($row));
}

function large_value(): string
{
    $block = '';
    for ($i = 0; $i < 1024; $i++) {
        $block .= hash('sha256', (string) $i, true);
    }
    return str_repeat($block, intdiv(LARGE, strlen($block)));
}

function infile(): string
{
    $path = (string) tempnam(sys_get_temp_dir(), 'sidepool-');
    $rows = '';
    for ($i = 0; $i < 5000; $i++) {
        $rows .= "row $i\tabc\n";
    }
    file_put_contents($path, $rows);
    return $path;
}

function table(string $name): string
{
    return "CREATE TABLE $name (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) UNIQUE, short VARCHAR(5), big LONGBLOB)"
        . ' CHARACTER SET utf8mb4';
}

function finish(): void
{
    global $checks, $driver;
    echo "ok $driver: $checks checks\n";
}
