/** `npm run status`: what runs in this folder, for people and for programs. */
import type { Command } from '../main.ts'
import { processEnded, readState, type StackReport, type StackState } from '../state.ts'
import { print, printError, styled } from '../terminal/output.ts'
import { summary } from '../terminal/summary.ts'
import { parseOptions } from './options.ts'

const usage = `
npm run status -- [--json]

  --json  the keys of "supabase status -o json", and PAYMENTS_URL and DEMO_USERS (npm run -s hides npm's own lines)

Exit code 0 when the stack answers, 1 when it does not run or is not ready.
`

const command: Command = {
  usage,
  async run(project, args) {
    const { values } = parseOptions({ args, usage, options: { json: { type: 'boolean', default: false } } })
    const state = await readState(project.localDir)
    const trouble = await troubleOf(state)
    if (state?.report !== undefined && trouble === undefined) {
      print(values.json ? JSON.stringify(statusKeys(state.report), null, 2) : table(state, state.report))
      return 0
    }
    printError(trouble ?? 'Nothing runs here. npm start starts it.')
    return 1
  },
}
export default command

/** As `supabase status -o json` names them. */
function statusKeys(report: StackReport) {
  return {
    API_URL: report.apiUrl,
    FUNCTIONS_URL: report.functionsUrl,
    REST_URL: `${report.apiUrl}/rest/v1`,
    DB_URL: report.databaseUrl,
    PAYMENTS_URL: report.paymentsUrl,
    PUBLISHABLE_KEY: report.publishableKey,
    SECRET_KEY: report.secretKey,
    ANON_KEY: report.anonKey,
    SERVICE_ROLE_KEY: report.serviceRoleKey,
    JWT_SECRET: report.jwtSecret,
    DEMO_USERS: report.demoUsers,
  }
}

/** Why nothing could be used now, if so. The process may live and yet not answer. */
async function troubleOf(state: StackState | undefined): Promise<string | undefined> {
  if (state === undefined) return 'Nothing runs here. npm start starts it.'
  if (state.phase === 'failed') {
    return `The last reset failed: ${state.resetFailure?.message}\nCorrect that, then: npm run reset`
  }
  if (state.phase !== 'ready' || state.report === undefined) {
    return `Not ready: it is ${state.phase} (process ${state.pid})`
  }
  try {
    const response = await fetch(state.report.apiUrl, { signal: AbortSignal.timeout(3_000) })
    await response.body?.cancel()
    return undefined
  } catch {
    const ended = await processEnded(state, 0)
    return ended
      ? 'It has just ended. npm start starts it.'
      : `${state.report.apiUrl} does not answer; see npm run logs -- stack`
  }
}

function table(state: StackState, report: StackReport): string {
  const minutes = Math.floor((Date.now() - Date.parse(state.startedAt)) / 60_000)
  const since = minutes < 1 ? 'less than a minute' : `${minutes} min`
  const where = state.mode === 'detached' ? 'in the background' : 'in a terminal'
  const isolates = report.isolates === 1 ? '' : `, ${report.isolates} isolates a function`
  const head = `${styled('green', '●')} ${styled('bold', 'Holdfast runs')} ${where} for ${since}${isolates}`
  return `\n${head} ${styled('dim', `(process ${state.pid})`)}\n\n${summary(report)}\n`
}
