/** Two ways to place an order, to be pasted into a shell in the project's folder. */
import type { StackReport } from '../state.ts'

export interface Snippet {
  title: string
  code: string
}

/** None where there is no demo user or no product to order. They need no tool beyond curl, sed and the project's own. */
export function snippets(report: StackReport): Snippet[] {
  const user = report.demoUsers[0]
  if (user === undefined || report.sku === undefined) return []
  return [
    { title: 'Place an order with curl', code: curlSnippet(report, user, report.sku) },
    { title: 'Place an order with supabase-js', code: supabaseJsSnippet(report, user, report.sku) },
  ]
}

function curlSnippet(report: StackReport, user: { email: string; password: string }, sku: string): string {
  const { apiUrl, functionsUrl, publishableKey } = report
  return `
TOKEN=$(curl -s '${apiUrl}/auth/v1/token?grant_type=password' \\
  -H 'apikey: ${publishableKey}' \\
  -H 'Content-Type: application/json' \\
  -d '${JSON.stringify({ email: user.email, password: user.password })}' |
  sed -E 's/.*"access_token": ?"([^"]+)".*/\\1/')
curl -s '${functionsUrl}/orders' \\
  -H 'apikey: ${publishableKey}' \\
  -H "Authorization: Bearer $TOKEN" \\
  -H 'Content-Type: application/json' \\
  -H "Idempotency-Key: order-$(date +%s)" \\
  -d '${JSON.stringify({ items: [{ sku, quantity: 1 }], payment: { token: 'tok_visa' } })}'
`.trim()
}

function supabaseJsSnippet(
  report: StackReport,
  user: { email: string; password: string },
  sku: string,
): string {
  return `
node_modules/.bin/deno run -A - <<'EOF'
import { createClient } from '@supabase/supabase-js'

const supabase = createClient('${report.apiUrl}', '${report.publishableKey}')
await supabase.auth.signInWithPassword({ email: '${user.email}', password: '${user.password}' })
const { data, error } = await supabase.functions.invoke('orders', {
  headers: { 'Idempotency-Key': crypto.randomUUID() },
  body: { items: [{ sku: '${sku}', quantity: 1 }], payment: { token: 'tok_visa' } },
})
console.log(error ?? data)
EOF
`.trim()
}
