/** Prints how many milliseconds the import of one module takes in a new process: `importTime.ts <module>`. */
const [module = ''] = Deno.args
const startedAt = performance.now()
await import(module)
Deno.stdout.writeSync(new TextEncoder().encode(String(performance.now() - startedAt)))
Deno.exit(0)
