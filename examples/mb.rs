#![allow(unused, unsafe_code, clippy::all)]
use tch::{Kind, Tensor, Device};
use std::time::Instant;
fn t(name:&str, n:usize, mut f: impl FnMut()) { for _ in 0..50 {f()} let mut best=f64::MAX; for _ in 0..5 { let s=Instant::now(); for _ in 0..400 { f() } best=best.min(s.elapsed().as_secs_f64()/400.0);} println!("{name:28} {:.2} us  ", best*1e6); }
fn main(){
 tch::set_num_threads(1);
 let _g = tch::no_grad_guard();
 for n in [32768usize, 65536,131072] {
 println!("n={n}");
 for kind in [Kind::Half, Kind::BFloat16] {
 println!("{kind:?}");
 let a=Tensor::randn([n as i64],(Kind::Float,Device::Cpu)).to_kind(kind);
 let b=Tensor::randn([n as i64],(Kind::Float,Device::Cpu)).to_kind(kind);
 let mut a32=a.to_kind(Kind::Float); let mut b32=b.to_kind(Kind::Float); let mut o=a.zeros_like();
 let mut o32=a32.zeros_like();
 t("to_kind",n,||{let _=a.to_kind(Kind::Float);});
 t("copy_ half->f32",n,||{a32.copy_(&a);});
 t("dot f32",n,||{let _=a32.dot(&b32);});
 t("dot+item",n,||{let _=a32.dot(&b32).double_value(&[]);});
 t("norm2 half dtype f32",n,||{let _=a.f_norm_scalaropt_dtype(2.0,Kind::Float).unwrap();});
 t("f32 norm",n,||{let _=a32.norm();});
 t("dot half",n,||{let _=a.dot(&b);});
 let one=Tensor::ones([1],(Kind::Float,Device::Cpu));
 let m=a32.view([1,n as i64]); let mut om=o32.view([1,n as i64]);
 t("mul_ + add_",n,||{ let _=o32.f_mul_scalar_(0.999).unwrap(); let _=o32.f_add_(&b32).unwrap(); });
 t("copy_ f32->half",n,||{o.copy_(&a32);});
 t("lerp scalar_",n,||{let _=o32.f_lerp_(&b32,0.3).unwrap();});
 let mut st=Tensor::zeros([2,n as i64],(Kind::Float,Device::Cpu));
 t("gram mm",n,||{ let _=st.mm(&st.tr());});
 let st2=Tensor::zeros([n as i64,2],(Kind::Float,Device::Cpu)).tr();
 t("gram mm interl",n,||{ let _=st2.mm(&st2.tr());});
 let x=Tensor::ones([2],(Kind::Float,Device::Cpu));
 t("mv 2xn",n,||{ let _=st.mv(&a32);});
 t("mv t fused axpby",n,||{ let _=st.tr().f_mv_out(&o32,&x).unwrap();});
 t("addr r*b",n,||{ let _=o32.view([1,n as i64]).f_addr_(&one,&b32).unwrap();});
 t("memcpy",n,||{ let mut d=vec![0u8;0]; d.extend_from_slice(&vec![1u8;1]);});
 let idx=Tensor::zeros([2,n as i64],(kind,Device::Cpu));
 t("stack copy_ 2xn",n,||{ st.copy_(&idx);});
 t("isfinite all", n, ||{ let _=a.isfinite().all().int64_value(&[]);});
 t("alloc wrap view",n,||{ let _=st.get(0);});
 let raw=vec![1u8;n*2];
 t("crc-fast half bytes",n,||{ std::hint::black_box(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc,&raw));});
 t("memcmp",n,||{ std::hint::black_box(raw[..]==raw.clone()[..]);});
 }}
}
