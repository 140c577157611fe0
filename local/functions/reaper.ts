/**
 * The last resort against orphans: a small shell that outlives the host by a moment. When the host is gone, even by
 * `kill -9`, the shell's standard input ends; it then kills every isolate still listed, hung ones included, and
 * removes the socket directory.
 */

const script = `
trap '' INT TERM HUP
pids=' '
while read -r sign pid; do
  case $sign in
    +) pids="$pids$pid " ;;
    -) pids="\${pids%% $pid *} \${pids#* $pid }" ;;
  esac
done
for pid in $pids; do kill -9 "$pid" 2>/dev/null; done
rm -rf "$1"
`

export interface Reaper {
  /** From now on this process dies with the host. */
  watch(pid: number): void
  /** The process has ended: its number may soon be another's. */
  release(pid: number): void
  /** Kills what is still watched, removes the directory, and resolves when both are done. */
  close(): Promise<void>
}

/** Starts the shell; `directory` goes away with the host. */
export function startReaper(directory: string): Reaper {
  const child = new Deno.Command('/bin/sh', {
    args: ['-c', script, 'holdfast-reaper', directory],
    stdin: 'piped',
    stdout: 'null',
    stderr: 'null',
    // Out of the terminal's process group: Ctrl-C must not reach it before the host has closed.
    detached: true,
    cwd: '/',
  }).spawn()
  const input = child.stdin.getWriter()
  const tell = (line: string) => input.write(new TextEncoder().encode(`${line}\n`)).catch(() => {})
  return {
    watch: (pid) => void tell(`+ ${pid}`),
    release: (pid) => void tell(`- ${pid}`),
    async close() {
      await input.close().catch(() => {})
      await child.status
    },
  }
}
